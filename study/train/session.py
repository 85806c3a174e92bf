"""What one attempt at a trial trains with, and how its workers agree."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings
from study.tasks.task import Examples, Task
from study.train.length import Length, length_of, shared_batch

WARMUP_STEPS = 10
"""At most this many first steps, and at most a quarter of all, are left out of the median step time."""


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """Place of this process among data-parallel workers; the process group is already initialized."""

    rank: int
    world_size: int


@dataclass(kw_only=True)
class StepTimes:
    """Times of training steps, each measured to the end of the device's work."""

    step_times_s: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float | None:
        """Median after warm-up, None before the first step."""
        times = self.step_times_s
        kept = sorted(times[min(WARMUP_STEPS, len(times) // 4) :])
        if not kept:
            return None
        middle = len(kept) // 2
        return kept[middle] if len(kept) % 2 else (kept[middle - 1] + kept[middle]) / 2

    @property
    def total_s(self) -> float:
        """Time in training steps."""
        return sum(self.step_times_s)


@dataclass(kw_only=True)
class Session:
    """Everything that one attempt at a trial trains with."""

    settings: TrialSettings
    task: Task
    examples: Examples
    model: nn.Module
    network: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    place: Distributed
    deadline: float | None = None
    clock: StepTimes = field(default_factory=StepTimes)

    @property
    def sharded(self) -> bool:
        """Whether the workers share the network out among them, so that they must use it in step."""
        return self.settings.scaling.parallel == "fsdp2" and dist.is_initialized()

    @property
    def replicated(self) -> bool:
        """Whether each worker holds the whole network, in DistributedDataParallel."""
        return self.network is not self.model and isinstance(
            self.network, nn.parallel.DistributedDataParallel
        )

    @cached_property
    def plain(self) -> TrainSettings:
        """The training without what changes its targets: by it, rows record the loss."""
        return replace(self.settings.train, label_smoothing=0.0)

    @cached_property
    def batch_size(self) -> int:
        """Examples per step over all workers: the trial's, or all that there are, in equal shares."""
        return shared_batch(self.settings.train.batch_size, len(self.examples.train), self.place.world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch; the examples of an incomplete one have their turn in another epoch."""
        return self.length.steps_per_epoch

    @cached_property
    def length(self) -> Length:
        """How long the training is."""
        return length_of(
            self.settings,
            examples=len(self.examples.train),
            tokens_per_example=self.examples.shape.tokens_per_example,
            workers=self.place.world_size,
        )


def any_worker(session: Session, flag: bool) -> bool:
    """Whether `flag` is set on any worker."""
    return bool(summed(session, torch.tensor([float(flag)], dtype=torch.float64)).item())


def summed(session: Session, values: Tensor) -> Tensor:
    """The sum over all workers."""
    if session.place.world_size == 1:
        return values
    on_device = values.to(session.device)
    dist.all_reduce(on_device)
    return on_device.cpu()
