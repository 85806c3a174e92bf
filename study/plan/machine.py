"""What this machine offers to trials, and which of them will not fit in its memory, with a way out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.identity import strategy_of
from study.plan.concurrency import at_once
from study.settings.run import ScalingSettings
from study.settings.trial import Trial

if TYPE_CHECKING:
    from study.plan.cost import Cost


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores, memory, GPUs and the memory of the smallest GPU; None where unknown."""

    cpus: int
    gpus: int = 0
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None

    def at_once(self, scaling: ScalingSettings) -> int:
        """How many trials of this size run side by side; 0 if not even one does."""

        def fit(workers: int) -> int:
            cpus = int(self.cpus / (scaling.cpus_per_worker * workers) + 1e-9)
            if not scaling.gpus_per_worker:
                return cpus
            return min(cpus, int(self.gpus / (scaling.gpus_per_worker * workers) + 1e-9))

        return at_once(scaling, fit)

    def lacks(self, needed_bytes: int | None, *, on_gpu: bool) -> str:
        """Why one worker cannot run here, even alone. What is not known keeps nothing from being tried.

        Args:
            needed_bytes: What a training step takes on one worker.
            on_gpu: Whether it takes it on a GPU.

        Returns:
            The reason and the remedy; empty if it can run.
        """
        available = self.gpu_memory_bytes if on_gpu else self.memory_bytes
        if needed_bytes is None or available is None or needed_bytes <= available:
            return ""
        whose = "a GPU of this machine" if on_gpu else "this machine"
        return (
            f"a training step is predicted to take {needed_bytes:,} bytes; {whose} has {available:,}. "
            "Choose a memory strategy that stores less, a smaller batch or model; or set budget.unfit: try, "
            "to train it all the same"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A group of trials of equal memory that will not fit: what they need, what there is, and the remedy."""

    model: str
    trial_ids: tuple[str, ...]
    needed_bytes: int
    available_bytes: int
    what: str
    remedy: str


def this_machine(*, memory_bytes: int | None = None) -> Machine:
    """Return the machine this process runs on, a container's limits included.

    Args:
        memory_bytes: Memory to plan for instead of what is found here: of a GPU where trials use GPUs, else
            of the machine.
    """
    import torch

    gpus = torch.cuda.device_count()
    smallest = min((torch.cuda.get_device_properties(i).total_memory for i in range(gpus)), default=None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cpus=cores,
        gpus=gpus,
        memory_bytes=memory_bytes or memory_of_machine(),
        gpu_memory_bytes=memory_bytes or smallest,
    )


def misfits(trials: Sequence[Trial], costs: Mapping[str, Cost], machine: Machine) -> tuple[Misfit, ...]:
    """Return trials whose predicted memory exceeds the GPU's, or the machine's with all that run side by
    side.

    The prediction covers the tensors of a training step, not the libraries that a process loads.
    """
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        s = trial.settings
        if trial.trial_id in costs:
            key = (s.model, s.precision, s.memory, s.train.batch_size, s.scaling, s.data.name)
            groups.setdefault(key, []).append(trial)
    found = []
    for group in groups.values():
        misfit = _misfit(group, costs[group[0].trial_id], machine)
        if misfit is not None:
            found.append(misfit)
    return tuple(found)


def _misfit(group: list[Trial], cost: Cost, machine: Machine) -> Misfit | None:
    settings = group[0].settings
    scaling, strategy = settings.scaling, settings.memory.strategy
    per_worker, fewer = cost.memory_bytes, ""
    if scaling.gpus_per_worker:
        share = max(1, int(1 / scaling.gpus_per_worker)) if scaling.gpus_per_worker < 1 else 1
        needed, available, what = per_worker * share, machine.gpu_memory_bytes, "the memory of a GPU"
        if share > 1:
            what, fewer = f"{what} that {share} trials share", "raise scaling.gpus_per_worker"
    else:
        at_once = max(1, machine.at_once(scaling))
        needed, available = per_worker * scaling.workers * at_once, machine.memory_bytes
        what = "the memory of the machine"
        if at_once > 1:
            what = f"{what} with {at_once} trials side by side"
            if available is not None and per_worker * scaling.workers <= available:
                fewer = "raise scaling.cpus_per_worker, so that fewer run side by side"
    if available is None or needed <= available:
        return None
    ways = [fewer] if fewer else []
    if not strategy_of(settings).saves_memory:
        ways += [f"set memory.strategy: {name}" for name in _frugal(settings.model.name)]
    smaller = _smaller_batch(settings.train.batch_size, needed / available, scaling.workers)
    ways.append(
        f"lower train.batch_size to {smaller} or less" if smaller else "lower model.width or model.depth"
    )
    name = f"{settings.model.name} depth {settings.model.depth} width {settings.model.width:g} {strategy}"
    return Misfit(
        model=name,
        trial_ids=tuple(trial.trial_id for trial in group),
        needed_bytes=needed,
        available_bytes=available,
        what=what,
        remedy=", or ".join(ways),
    )


def _smaller_batch(batch: int, excess: float, workers: int) -> int:
    """A batch that memory proportional to it would let fit; 0 if none is left for each worker."""
    return int(batch / excess / workers) * workers


def _frugal(model: str) -> list[str]:
    """The strategy that saves most memory without a setting of its own, if the network can use it."""
    from revmodels.models.catalog import PRESETS
    from revmodels.strategies.registry import default_strategy, find_strategy

    name = default_strategy(invertible=PRESETS[model].is_reversible)
    return [name] if find_strategy(name).saves_memory else []


def memory_of_machine() -> int | None:
    """Memory of the machine, or of the container this process is in, whichever is less."""
    found = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return min(found, default=None)
