"""Start Ray, or join a running cluster, quietly and only when there is something to run."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.cluster.reach import ClusterError, check_cluster
from study.ray_internals import dead_processes

__all__ = ["Cluster", "ClusterError", "ClusterLostError", "ray_session"]

ENVIRONMENT = {
    # The store holds the results; Tune's own CSV, JSON and TensorBoard files would only repeat them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C reaches us as KeyboardInterrupt: rows that are written stay, nothing has to be saved.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The objectives exist once a trial has ended; its epochs report without them.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Tune snapshots its state for its own resume, which the store makes needless.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # The older reporter of Tune is the one that verbose=0 silences.
    "RAY_AIR_NEW_OUTPUT": "0",
    # The default of 2 s is added to the start and end of every distributed trial.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A relative path in a study file, such as that of its images, is meant from where the command was given.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
}
"""Settings that Ray reads when it is imported or when its processes start. A user's own value wins."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes a Ray of our own listen on 127.0.0.1 alone, as it does by default on Windows and macOS; on Linux its
control service and raylet would listen on all interfaces. Ray reads it when it is imported."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Only settings and rows travel between processes, so a local Ray needs little shared memory."""

WATCH_S = 1.0
ESSENTIAL = ("raylet", "gcs_server")


class ClusterLostError(ClusterError):
    """Ray died while it ran trials. What they wrote to the store stays."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a running Ray offers. `joined` is one that was there before; its machines are to be checked."""

    cpus: int
    gpus: int
    joined: bool = False
    dead: Callable[[], str] = lambda: ""

    def check(self) -> None:
        """Make sure that Ray's processes on this machine are alive: without them, Tune would wait for ever.

        Raises:
            ClusterLostError: One of them is gone.
        """
        gone = self.dead()
        if gone:
            raise ClusterLostError(
                f"Ray died on this machine ({gone} ended): what is done is kept; "
                "run the same command to go on"
            )

    def room(self, *, cpus: float, gpus: float) -> int:
        """How many groups of `cpus` and `gpus` fit at once."""
        return int(min(self.cpus / cpus if cpus else self.cpus, self.gpus / gpus if gpus else self.cpus))

    def slots(self, *, cpus: float, gpus: float) -> int:
        """Return how many groups of `cpus` and `gpus` fit at once, which must be one at least.

        Raises:
            ClusterError: Not even one group fits.
        """
        fit = self.room(cpus=cpus, gpus=gpus)
        if fit < 1:
            raise ClusterError(
                f"a trial needs {cpus:g} CPUs and {gpus:g} GPUs, "
                f"Ray offers {self.cpus} CPUs and {self.gpus} GPUs: "
                "lower scaling.workers, scaling.cpus_per_worker or scaling.gpus_per_worker, "
                "or pass --address of a larger cluster"
            )
        return fit


@contextmanager
def ray_session(
    address: str | None = None,
    *,
    dashboard: bool = False,
    num_cpus: int | None = None,
    code: str | None = None,
) -> Iterator[Cluster]:
    """Yield the resources of a Ray that is up, and stop it afterwards if it was started here.

    A Ray that this process already uses is taken as it is. `address` is `None` for a Ray of our own on this
    machine, or what `ray.init` takes (`auto`, `host:port`); the environment's `RAY_ADDRESS` counts too. A Ray
    of our own listens on loopback alone and asks for a token, and one that is joined is shown the token, if
    there is one (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; RAY_AUTH_MODE=disabled: neither).
    `dashboard` is needed by Ray Train, whose clean-up of stopped trials asks the dashboard's state service.
    `num_cpus` caps a Ray of our own; it takes all cores otherwise. `code` is a folder of modules that a study
    brings along: the machines of a cluster that is joined get a copy. Ray prints what happens to its
    processes on standard output, where our results go: inside the session, what is printed is dropped.

    Raises:
        ClusterError: The cluster cannot be reached, or Ray cannot start.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    for name, value in (ENVIRONMENT if address else {**ENVIRONMENT, **LOOPBACK}).items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"ray\..*")
    if address is not None:
        check_cluster(address)
    import ray

    if ray.is_initialized():
        yield _cluster(joined=address is not None)
        return
    own: dict[str, Any] = {
        "include_dashboard": dashboard,
        "object_store_memory": OBJECT_STORE_BYTES,
        "num_cpus": num_cpus,
    }
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **(_brought(code) if address else own),
            )
        except Exception as error:  # Ray raises many kinds here, and each means the same to the user.
            what = f"Ray at {address!r} cannot be reached" if address else "Ray cannot start on this machine"
            raise ClusterError(f"{what}: {_first_line(error)}") from error
        try:
            for name in ("ray", "ray.tune", "ray.train"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield _cluster(joined=address is not None)
        finally:
            ray.shutdown()


def _brought(code: str | None) -> dict[str, Any]:
    """The runtime environment with a folder of modules. A submitted job has one already, which holds it."""
    if code is None or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or not Path(code).is_dir():
        return {}
    return {"runtime_env": {"working_dir": code}}


def _cluster(*, joined: bool) -> Cluster:
    import ray

    resources = ray.cluster_resources()
    return Cluster(
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        joined=joined,
        dead=_Watch().dead_process,
    )


class _Watch:
    """Looks after the processes of Ray that this one depends on.

    A driver whose raylet is killed is told nothing: its trials fail one by one, and no other ever starts.
    """

    def __init__(self) -> None:
        import ray

        self._node_id = ray.get_runtime_context().get_node_id()
        self._looked = time.monotonic()

    def dead_process(self) -> str:
        """The name of one that is gone, or nothing; it looks at most once a second."""
        import ray

        if time.monotonic() - self._looked < WATCH_S:
            return ""
        self._looked = time.monotonic()
        # Asking also reaps the dead, without which Ray's workers take their dead parent for alive.
        gone = dead_processes() & set(ESSENTIAL)
        if not gone and not any(n["NodeID"] == self._node_id and n["Alive"] for n in ray.nodes()):
            gone = {"the raylet of this machine"}
        return ", ".join(sorted(gone))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
