"""What one attempt at a trial trains with, and how its workers agree."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from study.data.load import ImageData
from study.settings import TrialSettings

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
    data: ImageData
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
    def dtype(self) -> torch.dtype:
        """Of the inputs: that of the parameters."""
        return torch.float64 if self.settings.precision.compute == "fp64" else torch.float32

    @property
    def batch_size(self) -> int:
        """Images per step over all workers: the trial's, or all that there are, in equal shares."""
        size = min(self.settings.train.batch_size, len(self.data.train))
        return size - size % self.place.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch; the images of an incomplete one have their turn in another epoch."""
        return len(self.data.train) // self.batch_size


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
