"""One epoch of training, step by step.

Shapes: N images of a batch, C channels, H rows, W columns. With several workers N is this worker's share.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from study.outcomes import DivergedError, TimeUpError
from study.train.batches import training_batches
from study.train.nonfinite import first_bad_block
from study.train.optim import learning_rate
from study.train.session import Session, summed
from study.train.stream_range import StreamRange


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


def train_epoch(session: Session, epoch: int) -> EpochResult:
    """Train for one epoch, counted from 1.

    Returns:
        The epoch's means, times and counts.

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
    loss_sum, correct_sum, examples = summed(session, totals).tolist()
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
    bad, late_anywhere = summed(session, flags).tolist()
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
