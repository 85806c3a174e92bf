"""How large a cluster a study fills, equal worker nodes sized from its plan, and where it runs.

Memory is what trials are predicted to take, plus what a process takes that has imported torch and Ray.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.errors import StudyError
from study.settings.run import ScalingSettings

if TYPE_CHECKING:
    from study.plan.expand import Plan
    from study.plan.searches import PlannedSearch
    from study.spec.study import Study

PROCESS_BYTES = 1_500_000_000
"""Resident memory of a trial's process beyond its tensors; 0.5 to 0.9 GB on a CPU, more with CUDA."""
NODE_BYTES = 2_000_000_000
"""Ray's own processes on a node, its object store included."""
HEAD_CPUS, HEAD_MEMORY_BYTES = 2, 6_000_000_000
"""The head runs the driver and the dashboard, and no trials."""
GIB = 2**30

CORNERS = 16
"""The most models of a search whose memory is predicted, about a second each."""

DEFAULT_CPUS, DEFAULT_NODES = 8, 4


CLAIM = "revstudy-store"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a cluster runs and what it runs.

    Attributes:
        image: Container image of all nodes; None for Ray's own of this version, which lacks torch and
            revstudy.
        namespace: Of Kubernetes; None for the one that `kubectl` uses.
        claim: PersistentVolumeClaim, ReadWriteMany, that is mounted where the store is.
        token_secret: A Secret whose key ``auth_token`` holds Ray's token; None lets KubeRay make one.
        region: Of AWS.
        instance_type: Of the worker nodes on AWS; None picks the smallest that holds them.
    """

    image: str | None = None
    namespace: str | None = None
    claim: str = CLAIM
    token_secret: str | None = None
    region: str = "us-west-2"
    instance_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What a cluster of equal worker nodes is made of, besides its head."""

    nodes: int
    cpus: int
    gpus: int
    memory_bytes: int
    workers: int
    trials: int

    @property
    def memory_gib(self) -> int:
        """Memory of a node in GiB, rounded up."""
        return math.ceil(self.memory_bytes / GIB)

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        return (
            f"{self.nodes} nodes of {self.cpus} CPUs{gpus} and {self.memory_gib} GiB for {self.trials} "
            f"trials, {self.workers} workers at once"
        )


def size_of(
    plan: Plan,
    study: Study,
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    memory_gb: float | None = None,
    max_nodes: int = DEFAULT_NODES,
) -> Sizing:
    """Return the nodes that a plan's trials fill, at most `max_nodes`.

    Args:
        plan: The plan, with predicted costs.
        study: Its study.
        cpus: CPUs of a node; by default 8, or what a worker needs if that is more.
        gpus: GPUs of a node; by default those that a worker needs.
        memory_gb: Memory of a node in GB; by default that of all workers that the node holds.
        max_nodes: The most nodes to ask for.

    Raises:
        StudyError: A worker does not fit on a node, or the largest trial not on `max_nodes` of them.
    """
    wanted = list(_wanted(plan, study))
    if not wanted:  # All is done: the smallest cluster runs the driver, which finds nothing to train.
        wanted = [(ScalingSettings(), 1, 0)]
    cpus = cpus or max(DEFAULT_CPUS, *(math.ceil(s.cpus_per_worker) for s, _, _ in wanted))
    gpus = max(math.ceil(s.gpus_per_worker) for s, _, _ in wanted) if gpus is None else gpus
    nodes = memory = workers = 1
    for scaling, trials, cost_bytes in wanted:
        slots = _slots(scaling, cpus, gpus)
        least = math.ceil(scaling.workers / slots)
        if least > max_nodes:
            raise StudyError(
                "--max-nodes",
                value=max_nodes,
                rule=f"a trial of {scaling.workers} workers needs {least} nodes of {cpus} CPUs and {gpus} "
                "GPUs",
                remedy=f"pass --max-nodes {least}, or larger nodes with --cpus-per-node and --gpus-per-node",
            )
        most = min(max_nodes, math.ceil(scaling.workers * trials / slots))
        nodes = max(nodes, least, most)
        # Tensors of a trial with GPUs are on them; its process is in the node's memory all the same.
        per_worker = PROCESS_BYTES + (0 if scaling.gpus_per_worker else cost_bytes)
        memory = max(memory, NODE_BYTES + min(slots, scaling.workers * trials) * per_worker)
        workers = max(workers, min(scaling.workers * trials, max(least, most) * slots))
    if memory_gb is not None:
        if memory_gb * 1e9 < memory:
            raise StudyError(
                "--memory-per-node-gb",
                value=memory_gb,
                rule=f"the workers of a node are predicted to take {memory / 1e9:.1f} GB",
                remedy="raise it, or lower --cpus-per-node, so that fewer run side by side",
            )
        memory = round(memory_gb * 1e9)
    return Sizing(nodes=nodes, cpus=cpus, gpus=gpus, memory_bytes=memory, workers=workers, trials=plan.total)


def _wanted(plan: Plan, study: Study) -> Iterable[tuple[ScalingSettings, int, int]]:
    """Each size of trial, with their number and the most bytes that one of its workers may take."""
    from study.plan.searches import common_settings

    grids: dict[ScalingSettings, list[int]] = {}
    for trial in plan.trials:
        grids.setdefault(trial.settings.scaling, []).append(trial.memory_predicted_bytes or 0)
    for scaling, costs in grids.items():
        yield scaling, len(costs), max(costs)
    for search in plan.searches:
        if search.count:
            scaling = common_settings(study, search).scaling
            yield scaling, search.count, max(_corner_costs(study, search))


def _corner_costs(study: Study, search: PlannedSearch) -> Iterable[int]:
    """Predicted bytes at the large end of what a search varies, with each word that its lists hold."""
    from study.plan.cost import trial_cost
    from study.plan.points import apply_point
    from study.plan.searches import search_space

    choices = []
    for path, axis in search_space(study, search.step).items():
        values = axis.values or axis.bounds or (None,)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        choices.append([(path, value) for value in ([max(values)] if numbers else values)])
    for point in itertools.islice(itertools.product(*choices), CORNERS):
        yield trial_cost(apply_point(study, dict(point), seed=search.seeds[0])).memory_bytes


def _slots(scaling: ScalingSettings, cpus: int, gpus: int) -> int:
    slots = int(cpus / scaling.cpus_per_worker + 1e-9)
    if scaling.gpus_per_worker:
        slots = min(slots, int(gpus / scaling.gpus_per_worker + 1e-9))
    if slots < 1:
        raise StudyError(
            "--cpus-per-node, --gpus-per-node",
            value=f"{cpus} CPUs, {gpus} GPUs",
            rule=f"a worker needs {scaling.cpus_per_worker:g} CPUs and {scaling.gpus_per_worker:g} GPUs",
            remedy="ask for larger nodes",
        )
    return slots
