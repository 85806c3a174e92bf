"""Training from one evaluation to the next, step by step."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from study.outcomes import DivergedError, TimeUpError
from study.tasks.task import Batch
from study.train.batches import training_batches
from study.train.nonfinite import first_bad_block
from study.train.optim import learning_rate
from study.train.session import Session, summed
from study.train.stream_range import StreamRange


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What the training from one evaluation to the next gave, over all workers."""

    values: dict[str, float]
    learning_rate: float
    gradient_norm: float
    time_s: float
    examples: int
    skipped: int | None
    streams: StreamRange | None


def train_steps(session: Session, first: int, last: int) -> Stretch:
    """Train from step `first` to step `last`, counted from 0 over the whole training; `last` is not trained.

    Returns:
        The means, times and counts of these steps.

    Raises:
        DivergedError: A loss or a gradient is not finite, on any worker; with fp16, at a loss scale below 1.
        TimeUpError: The deadline passed.
    """
    train, optimizer, scaler = session.settings.train, session.optimizer, session.scaler
    session.network.train()
    totals: Tensor | None = None
    spent, norm, rate, skipped = 0.0, math.nan, math.nan, 0
    streams = StreamRange.of(session.settings.precision)
    for step, batch in enumerate(training_batches(session, first, last), first):
        rate = learning_rate(train, step, session.length)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_multiplier", 1.0)
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        value, answers = _backward(session, batch)
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
        _check(session, wrong, step, batch)
        if streams is not None:
            streams.see(session.model)
        sums = _sums(session, answers)
        totals = sums if totals is None else totals + sums
    assert totals is not None
    return Stretch(
        values=session.task.values(summed(session, totals)),
        learning_rate=rate,
        gradient_norm=norm,
        time_s=spent,
        examples=(last - first) * session.batch_size,
        skipped=skipped if scaler.is_enabled() else None,
        streams=streams,
    )


Answer = tuple[Batch, Any, float]
"""A part of a batch, what the network answered, and the loss of that."""


def _backward(session: Session, batch: Batch) -> tuple[float, list[Answer]]:
    """Run forward and backward; gradients are in place afterwards.

    With gradient accumulation the batch goes through in parts, and the loss of each counts as much as it has
    terms.

    Returns:
        The loss of a step over this worker's share, and what the network answered.
    """
    task, train = session.task, session.settings.train
    parts = batch.parts(train.accumulate)
    weights = [task.weight(part) for part in parts]
    counts = [len(part) if weight is None else weight for part, weight in zip(parts, weights, strict=True)]
    total: float = sum(counts)
    if None not in weights and session.place.world_size > 1:
        # Workers' gradients are averaged: a share with more terms than the mean has to count for more.
        whole = summed(session, torch.tensor([float(total)], dtype=torch.float64)).item()
        total = whole / session.place.world_size
    answers: list[Answer] = []
    value = 0.0
    for part, count in zip(parts, counts, strict=True):
        later = part is not parts[-1]
        with session.network.no_sync() if later and session.replicated else nullcontext():  # type: ignore[operator]
            outputs = session.network(*part.inputs)
            loss = task.loss(outputs, part, train)
            whole_loss = loss if count == total else loss * (count / total)
            session.scaler.scale(whole_loss).backward()
        # Reading it waits for the device: weights are to move only by finite numbers.
        answers.append((part, _detached(outputs), loss.item()))
        value += answers[-1][2] * (1.0 if count == total else count / total)
    return value, answers


def _detached(outputs: Any) -> Any:
    return outputs.detach() if isinstance(outputs, Tensor) else outputs


@torch.no_grad()
def _sums(session: Session, answers: list[Answer]) -> Tensor:
    """The sums of the metrics over a step, with the loss as rows record it: of what was asked, unsmoothed."""
    train, plain = session.settings.train, session.plain
    totals: Tensor | None = None
    for part, outputs, value in answers:
        reported = value if plain == train else session.task.loss(outputs, part, plain).item()
        sums = session.task.sums(outputs, part, reported)
        totals = sums if totals is None else totals + sums
    assert totals is not None
    return totals


def _not_finite(loss: float, gradient_norm: float) -> str | None:
    for name, value in (("training loss", loss), ("norm of the gradients", gradient_norm)):
        if not math.isfinite(value):
            return f"{name} is {value}"
    return None


def _check(session: Session, wrong: str | None, step: int, batch: Batch) -> None:
    """End the trial on all workers at once: one that went on alone would wait for the others for ever."""
    late = session.deadline is not None and time.time() > session.deadline
    flags = torch.tensor([wrong is not None, late], dtype=torch.float64)
    bad, late_anywhere = summed(session, flags).tolist()
    epoch, within = divmod(step, session.steps_per_epoch)
    if bad:
        where = "it was found on another worker"
        if session.sharded:
            where = "which block it was is not known of a sharded network"
        elif wrong:
            where = first_bad_block(session.model, *batch.inputs)
        shown = wrong or "training loss is not finite"
        raise DivergedError(f"{shown} at epoch {epoch + 1}, step {within + 1}: {where}")
    if late_anywhere:
        raise TimeUpError(f"the time was up at epoch {epoch + 1}, step {within + 1}")
