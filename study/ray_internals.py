"""Everything of Ray that is private and that a run needs all the same. It is used here alone.

Each entry of `INTERNALS` says what the name is for and which public replacement was tried. `missing` finds
the names that the installed version lacks. Two of them are methods that are replaced: what the replacements
rely on was read in the versions of `TESTED`, and `untested` says so where another one is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

TESTED = ("2.60",)
"""Versions of Ray, major and minor, that the whole test suite has run with."""


@dataclass(frozen=True, kw_only=True)
class Internal:
    """One private name.

    Attributes:
        name: ``module:attribute.attribute``.
        purpose: What a run needs it for.
        tried: The public way that was tried, and why it does not do.
    """

    name: str
    purpose: str
    tried: str


INTERNALS = (
    Internal(
        name="ray.air.execution._internal.actor_manager:RayActorManager._actor_task_failed",
        purpose="Makes an actor that Ray ended for lack of memory a lost trial, not the end of the run.",
        tried="`tune.FailureConfig` and callbacks: Tune raises before it asks either.",
    ),
    Internal(
        name="ray.tune.execution.tune_controller:TuneController._cleanup_trials",
        purpose="Keeps trials that still run when Tune gives up from being written down as pruned.",
        tried="`tune.Callback.on_experiment_end`: it is called after the trials were stopped.",
    ),
    Internal(
        name="ray._private.worker:_global_node",
        purpose="Tells that the raylet or the control service of this machine has died.",
        tried="`ray.nodes()`: it answers from a cache for half a minute, or waits for ever.",
    ),
    Internal(
        name="ray._private.node:Node.dead_processes",
        purpose="Which of the processes that this one started are dead; asking also reaps them.",
        tried="`ray.nodes()`, as above.",
    ),
    Internal(
        name="ray._raylet:Config.initialize",
        purpose="Lets a Ray that is imported already read RAY_AUTH_MODE again.",
        tried="The variable alone: Ray reads it once, when it is imported.",
    ),
    Internal(
        name="ray.dashboard.modules.dashboard_sdk:SubmissionClient._do_request",
        purpose="Ends a request to a dashboard that hangs.",
        tried="`JobSubmissionClient(...)`: it takes no timeout, and waits for ever.",
    ),
)


_TELLING = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
"""Loggers that tell of every package that is sent; each has a level of its own, whatever that of ``ray``."""


def installed() -> str:
    """The installed version of Ray; empty where there is none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("ray")
    return ""


def untested() -> str:
    """A warning where the installed version is none of `TESTED`, else an empty text. It imports no Ray."""
    version = installed()
    if not version or ".".join(version.split(".")[:2]) in TESTED:
        return ""
    return (
        f"Ray {version} is installed, and this revstudy was tested with {', '.join(TESTED)}: how it "
        "takes failures of trials and of Ray itself may differ; "
        f'pip install "ray[default,train,tune]=={TESTED[-1]}.*"'
    )


def missing() -> list[Internal]:
    """The private names that the installed version lacks. It imports the parts of Ray that have them."""
    return [internal for internal in INTERNALS if not _exists(internal.name)]


def _exists(name: str) -> bool:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return True


def mend_tune() -> None:
    """Mend in this process what Tune makes of failures and must not; what is mended already stays as it is.

    A method that the installed version lacks is left out: `missing` names it.
    """
    for name, mend in ((INTERNALS[0].name, _deaths_for_memory), (INTERNALS[1].name, _unfinished_trials)):
        if _exists(name):
            mend()


def _deaths_for_memory() -> None:
    """Let Tune take Ray's `OutOfMemoryError` for what it is: the death of an actor that Ray has ended.

    Tune knows errors of actors and of tasks. This one is neither, and Tune gives up the whole run.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import ActorDiedError, OutOfMemoryError

    given_up = RayActorManager._actor_task_failed
    if getattr(given_up, "mended", False):
        return

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            death = ActorDiedError()
            death.error_msg = str(exception)
            exception = death
        given_up(manager, tracked_actor_task, exception)

    failed.mended = True  # type: ignore[attr-defined]
    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign, assignment]


def _unfinished_trials() -> None:
    """Keep Tune from stopping the trials that still run when it gives up, because Ray died or on any error.

    A trial that Tune stops in good order has been pruned: it writes that as its row, and no later run trains
    it again. One whose process is ended leaves no row, and the next run goes on with it.
    """
    from ray.tune.execution.tune_controller import TuneController

    stop_all = TuneController._cleanup_trials
    if getattr(stop_all, "mended", False):
        return

    def clean_up(controller: TuneController) -> None:
        if sys.exc_info()[0] is None:  # Tune cleans up in the handler of what ended it, too
            stop_all(controller)
            return
        with contextlib.suppress(Exception):  # Ray may be what died
            controller._actor_manager.cleanup()

    clean_up.mended = True  # type: ignore[attr-defined]
    TuneController._cleanup_trials = clean_up  # type: ignore[method-assign]


def dead_processes() -> set[str]:
    """The kinds of Ray's processes on this machine that this process started and that have ended."""
    import ray

    node = ray._private.worker._global_node
    return {str(kind) for kind, _ in node.dead_processes()} if node else set()


def read_token_mode_again() -> None:
    """Let a Ray that is imported already see a RAY_AUTH_MODE that was set since."""
    if "ray" in sys.modules:
        from ray._raylet import Config  # type: ignore[attr-defined]

        Config.initialize("")


def job_client(url: str, *, timeout_s: float) -> Any:
    """A `ray.job_submission.JobSubmissionClient` whose requests end after a while.

    Args:
        url: The dashboard.
        timeout_s: Time for one request.

    Returns:
        The client.
    """
    from ray.job_submission import JobSubmissionClient

    for name in _TELLING:
        logging.getLogger(name).setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        """With an end to waiting: Ray's own would wait for ever for a dashboard that hangs."""

        def _do_request(self, method: str, endpoint: str, **how: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": timeout_s, **how})

    return Client(url)
