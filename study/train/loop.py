"""One epoch of training, one evaluation, one probe: the parts that `study.train.trial` puts in order.

Shapes: N images of a batch, C channels, H rows, W columns. With several workers N is this worker's share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from revmodels import measure
from study.data.augment import augment, draw
from study.data.load import ImageData, Split
from study.outcomes import DivergedError, TimeUpError
from study.settings import TrainSettings, TrialSettings
from study.train.compiled import COMPILE
from study.train.nonfinite import first_bad_block
from study.train.optim import learning_rate
from study.train.stream_range import StreamRange

EVALUATION_BATCH = 512
WARMUP_STEPS = 10
"""At most this many first steps, and at most a quarter of all, are left out of the median step time."""


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """Place of this process among data-parallel workers; the process group is already initialized."""

    rank: int
    world_size: int


@dataclass(kw_only=True)
class Clock:
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
    clock: Clock = field(default_factory=Clock)

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


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What an epoch of training gave, over all workers."""

    loss: float
    accuracy: float
    learning_rate: float
    gradient_norm: float
    time_s: float
    examples: int
    skipped: int | None
    streams: StreamRange | None


def training_batches(session: Session, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this worker's share of every batch of an epoch: normalized, augmented inputs, and targets.

    Order and augmentation follow from the trial's seed and the epoch alone, so a resumed trial meets the same
    batches, and workers share one global batch whatever their number.
    """
    data, place, count = session.data, session.place, session.batch_size
    generator = torch.Generator().manual_seed(session.settings.seed * 1_000_003 + epoch)
    order_N = torch.randperm(len(data.train), generator=generator)
    share = slice(place.rank * count // place.world_size, (place.rank + 1) * count // place.world_size)
    for step in range(session.steps_per_epoch):
        index_N = order_N[step * count : (step + 1) * count]
        draws = draw(data.augmentation, count, generator) if data.augmentation else None
        inputs_NCHW, targets_N = batch(session, data.train, index_N[share])
        if data.augmentation and draws:
            inputs_NCHW = augment(inputs_NCHW, data.augmentation, draws[share])
            inputs_NCHW = _laid_out(inputs_NCHW, session.settings.train)
        yield inputs_NCHW, targets_N


def batch(session: Session, split: Split, index_N: Tensor) -> tuple[Tensor, Tensor]:
    """Normalized inputs (N, C, H, W) and targets (N,) on the session's device."""
    images = split.images_NCHW[index_N].to(session.device)
    inputs = _laid_out(session.data.normalize(images, session.dtype), session.settings.train)
    return inputs, split.labels_N[index_N].to(session.device)


def _laid_out(inputs_NCHW: Tensor, train: TrainSettings) -> Tensor:
    return inputs_NCHW.contiguous(
        memory_format=torch.channels_last if train.channels_last else torch.contiguous_format
    )


def train_epoch(session: Session, epoch: int) -> EpochResult:
    """Train for one epoch, counted from 1.

    Raises:
        DivergedError: A loss or a gradient is not finite, on any worker; with fp16, at a loss scale below 1.
        TimeUpError: The deadline passed.
    """
    train, optimizer, scaler = session.settings.train, session.optimizer, session.scaler
    session.network.train()
    totals = torch.zeros(3, dtype=torch.float64)  # loss, correct, examples
    first, spent, norm, rate = (epoch - 1) * session.steps_per_epoch, 0.0, math.nan, math.nan
    skipped = 0
    streams = StreamRange.of(session.settings.precision)
    for step, (inputs, targets) in enumerate(training_batches(session, epoch)):
        rate = learning_rate(train, first + step, session.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        logits = session.network(inputs)
        loss = F.cross_entropy(logits, targets, label_smoothing=train.label_smoothing)
        scaler.scale(loss).backward()
        value = loss.item()  # waits for the device: weights are to move only by finite numbers
        scaler.unscale_(optimizer)
        gradients = [p.grad for p in session.model.parameters() if p.grad is not None]
        total_norm = torch.nn.utils.get_total_norm(gradients)
        if session.sharded:
            from study.train.sharding import whole

            total_norm = whole(total_norm)
        if train.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(session.model.parameters(), train.clip_norm, total_norm)
        norm, scale = total_norm.item(), scaler.get_scale()
        # A scaler skips gradients that overflowed and halves its scale; below 1 the scale is not to blame.
        wrong = _not_finite(value, 0.0 if scaler.is_enabled() and scale >= 1 else norm)
        if wrong is None:
            scaler.step(optimizer)
            scaler.update()
            skipped += scaler.get_scale() < scale
        if session.device.type == "cuda":
            torch.cuda.synchronize(session.device)
        session.clock.step_times_s.append(time.perf_counter() - began)
        spent += session.clock.step_times_s[-1]
        _check(session, wrong, epoch, step, inputs)
        if streams is not None:
            streams.see(session.model)
        with torch.no_grad():
            plain = F.cross_entropy(logits, targets).item() if train.label_smoothing else value
            correct = int((logits.argmax(1) == targets).sum())
        totals += torch.tensor([plain * len(targets), correct, len(targets)], dtype=torch.float64)
    loss_sum, correct_sum, examples = _summed(session, totals).tolist()
    return EpochResult(
        loss=loss_sum / examples,
        accuracy=correct_sum / examples,
        learning_rate=rate,
        gradient_norm=norm,
        time_s=spent,
        examples=int(examples),
        skipped=skipped if scaler.is_enabled() else None,
        streams=streams,
    )


def _not_finite(loss: float, gradient_norm: float) -> str | None:
    for name, value in (("training loss", loss), ("norm of the gradients", gradient_norm)):
        if not math.isfinite(value):
            return f"{name} is {value}"
    return None


def _check(session: Session, wrong: str | None, epoch: int, step: int, inputs: Tensor) -> None:
    """End the trial on all workers at once: one that went on alone would wait for the others for ever."""
    late = session.deadline is not None and time.time() > session.deadline
    flags = torch.tensor([wrong is not None, late], dtype=torch.float64)
    bad, late_anywhere = _summed(session, flags).tolist()
    if bad:
        where = "it was found on another worker"
        if session.sharded:
            where = "which block it was is not known of a sharded network"
        elif wrong:
            where = first_bad_block(session.model, inputs)
        shown = wrong or "training loss is not finite"
        raise DivergedError(f"{shown} at epoch {epoch}, step {step + 1}: {where}")
    if late_anywhere:
        raise TimeUpError(f"the time was up at epoch {epoch}, step {step + 1}")


def _summed(session: Session, values: Tensor) -> Tensor:
    """The sum over all workers."""
    if session.place.world_size == 1:
        return values
    on_device = values.to(session.device)
    dist.all_reduce(on_device)
    return on_device.cpu()


def any_worker(session: Session, flag: bool) -> bool:
    """Whether `flag` is set on any worker."""
    return bool(_summed(session, torch.tensor([float(flag)], dtype=torch.float64)).item())


@torch.no_grad()
def evaluate(session: Session, split: Split) -> tuple[float, float]:
    """(cross-entropy, accuracy) of a split in evaluation mode, in the precision of training."""
    model, place = session.model, session.place
    if place.world_size > 1:
        # Running statistics differ between workers until the next step; rank 0's are the model's.
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64)
    shares = list(torch.arange(place.rank, len(split), place.world_size).split(EVALUATION_BATCH))
    for index in shares:
        inputs, targets = batch(session, split, index)
        logits = model(inputs)
        loss = F.cross_entropy(logits, targets, reduction="sum").item()
        correct = int((logits.argmax(1) == targets).sum())
        totals += torch.tensor([loss, correct, len(targets)], dtype=torch.float64)
    # Rank 0 has the most batches; of a sharded network, every worker has to take part in each.
    most = math.ceil(math.ceil(len(split) / place.world_size) / EVALUATION_BATCH)
    for _ in range(most - sum(len(index) > 0 for index in shares) if session.sharded else 0):
        model(batch(session, split, torch.arange(1))[0])
    model.train()
    loss_sum, correct_sum, examples = _summed(session, totals).tolist()
    return loss_sum / examples, correct_sum / examples


def measure_memory(session: Session) -> dict[str, Any]:
    """The memory columns of a trial's row: one training step on its first batch, which leaves no trace."""
    if session.sharded and session.device.type != "cuda":
        return {}  # shards come and go inside FSDP's storages, which the tracker does not see
    model = session.network if session.settings.memory.strategy == COMPILE else session.model
    model.train()
    smoothing = session.settings.train.label_smoothing
    use = measure.peak_memory(
        model,
        next(training_batches(session, 1)),
        session.optimizer,
        loss=lambda logits, targets: F.cross_entropy(logits, targets, label_smoothing=smoothing),
    )
    return {
        "memory_peak_bytes": use.total_bytes,
        "memory_activation_bytes": use.activation_bytes,
        "memory_parameter_bytes": use.parameter_bytes,
        "memory_gradient_bytes": use.gradient_bytes,
        "memory_optimizer_bytes": use.optimizer_bytes,
        "memory_buffer_bytes": use.buffer_bytes,
        "memory_saved_bytes": use.saved_bytes,
        "memory_source": use.source,
    }


def probe(session: Session) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Fidelity of the rebuilt activations on a fixed batch: the worst figures, and a row for each block.

    No figures for a model that rebuilds nothing.
    """
    settings = session.settings
    if settings.memory.strategy != "reverse" or not settings.probe.enabled:
        return {}, []
    session.model.train()
    index = torch.arange(min(settings.probe.examples, len(session.data.train)))
    inputs, targets = batch(session, session.data.train, index)
    result = measure.fidelity(session.model, (inputs, targets), reference=settings.probe.reference)
    rebuilds = any(block.reconstruction_rel_error is not None for block in result.blocks)
    constants = measure.lipschitz(session.model, inputs) if settings.probe.lipschitz else ()
    worst = {
        "reconstruction_rel_error": result.reconstruction_rel_error,
        "end_to_end_rel_error": result.end_to_end_rel_error,
        "gradient_rel_error": result.gradient_rel_error,
        "gradient_angle_deg": result.gradient_angle_deg,
    }
    blocks = [
        {
            "block": block.index,
            "reconstruction_rel_error": block.reconstruction_rel_error,
            "reconstruction_rel_error_x1": block.stream_rel_errors[0] if block.stream_rel_errors else None,
            "reconstruction_rel_error_x2": block.stream_rel_errors[1] if block.stream_rel_errors else None,
            **_gradient_columns(block),
        }
        for block in result.blocks
    ]
    for row, constant in zip(blocks, constants, strict=False):
        row.update(lipschitz_f=constant.f, lipschitz_g=constant.g)
    blocks += [_gradient_columns(part) for part in result.others]
    # The smallest RevNets have one unit a stage, and that one keeps its input: nothing to judge.
    return (worst if rebuilds else {}), blocks


def _gradient_columns(group: measure.GroupFidelity) -> dict[str, Any]:
    return {column.name: getattr(group, column.name) for column in fields(measure.GroupFidelity)}
