"""The training loop of one trial, from its settings to its rows. It imports no Ray, Optuna or pydantic.

One trial is: read the data, build the model on the trial's seed, measure the memory of one step, train and
validate for as long as asked for, probe how faithfully activations are rebuilt, and read the test set once.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from study import outcomes
from study.identity import resolve, strategy_of
from study.outcomes import DivergedError, StopError
from study.provenance import provenance
from study.settings.trial import Trial, TrialSettings
from study.store.rows import TrialResult, full_row, metric_columns, settings_columns
from study.tasks.metrics import LOSS
from study.train.build import matmul_precision
from study.train.evaluate import evaluate
from study.train.length import shared_batch
from study.train.loop import train_steps
from study.train.measurements import measure_memory, probe
from study.train.opening import gathered, open_session
from study.train.operations import peak_operations, step_operations
from study.train.progress import TrialProgress, restore, state_of
from study.train.session import Distributed, Session, any_worker

OnEpoch = Callable[[dict[str, Any]], bool | None]

Save = Callable[[dict[str, Any], int], None]


def train_trial(
    trial: Trial,
    *,
    attempt: int = 0,
    on_epoch: OnEpoch | None = None,
    resume: dict[str, Any] | None = None,
    save: Save | None = None,
    distributed: Distributed | None = None,
    deadline: float | None = None,
    device: str | None = None,
) -> TrialResult:
    """Train one trial and return its rows, however it ends.

    Everything random follows from the trial's seed, and the caller's random state is left as it was: on a CPU
    the same trial gives the same numbers, bit for bit, and so does one resumed from a saved state.

    Args:
        trial: What to train.
        attempt: 0 for the first try; part of every row's key.
        on_epoch: Called with the row of each evaluation, on every worker; a true answer ends the trial as
            ``pruned``, unless it was the last one.
        resume: A state that `save` was given, to go on from.
        save: Called after each evaluation, on every worker, with a state that
            ``torch.load(weights_only=True)`` can read back, and the evaluation's number. The state refers to
            live tensors: write it before returning.
        distributed: This process' place in an initialized process group. The batch size is shared by the
            workers; every worker returns rows, and rank 0's are the ones to keep.
        deadline: Seconds since the Unix epoch after which the trial ends as ``timeout``.
        device: ``cpu`` or ``cuda``; None takes CUDA where there is one.

    Returns:
        TrialResult Rows with exactly the columns of `analysis.schema`, as of a trial that had the machine to
        itself. Exceptions become outcomes; only those that are not `Exception` (an interrupt) pass through.
    """
    began, started_at = time.perf_counter(), datetime.now(UTC)
    place = distributed or Distributed(rank=0, world_size=1)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    progress = TrialProgress(trial=trial, attempt=attempt, columns={"outcome": outcomes.OK})
    try:
        with ExitStack() as stack:
            cuda = [torch.cuda.current_device()] if device.startswith("cuda") else []
            stack.enter_context(torch.random.fork_rng(devices=cuda))
            stack.enter_context(matmul_precision(trial.settings.precision.matmul))
            memory = resolve(trial.settings).memory
            stack.enter_context(strategy_of(trial.settings).session(**asdict(memory)))
            _run(progress, place, torch.device(device), deadline, resume, save, on_epoch)
    except Exception as error:
        progress.columns.update(outcomes.describe(_as_divergence(error, progress)))
    if device.startswith("cuda"):
        gc.collect()  # the traceback held the tensors of a trial that ran out of memory
        torch.cuda.empty_cache()
    return _result(progress, device, started_at, time.perf_counter() - began)


def _as_divergence(error: Exception, progress: TrialProgress) -> Exception:
    """An exact stream that is not finite means what a loss does that is not finite, and names the block."""
    from revmodels.errors import RangeError

    if not isinstance(error, RangeError) or math.isfinite(error.seen.value):
        return error
    epoch, step = len(progress.epochs) + 1, len(progress.clock.step_times_s) + 1
    return DivergedError(
        f"the streams are {error.seen.value} at epoch {epoch}, step {step}, first in block {error.seen.block}"
    )


def _run(
    progress: TrialProgress,
    place: Distributed,
    device: torch.device,
    deadline: float | None,
    resume: dict[str, Any] | None,
    save: Save | None,
    on_epoch: OnEpoch | None,
) -> None:
    began = time.perf_counter()
    session = open_session(progress, place, device, deadline)
    if resume is not None:
        restore(session, progress, resume)
    else:
        if progress.trial.settings.probe.cost:
            progress.columns.update(measure_memory(session))
            model, hardware = step_operations(session.settings, session.batch_size)
            progress.columns.update(flops_model=model, flops_hardware=hardware)
        _probe(session, progress, 0)
    while not _ended(session, progress.losses):
        row = _advance(session, progress)
        evaluation = row["epoch"]
        if save is not None:
            save(state_of(session, progress, evaluation, time.perf_counter() - began), evaluation)
        stop = on_epoch(row) if on_epoch is not None else False
        if any_worker(session, bool(stop)) and not _ended(session, progress.losses):
            raise StopError(f"stopped after epoch {evaluation} of {session.length.evaluations}")
    values = evaluate(session, session.examples.test)
    measured = session.task.measured(values, session.examples, "test")
    progress.columns.update(metric_columns(measured, progress.columns.get("metrics_json")))


def _ended(session: Session, losses: list[float]) -> bool:
    """Whether the training is at its end: by its length, or because validation losses fall no more."""
    if len(losses) >= session.length.evaluations:
        return True
    patience = session.settings.train.patience
    if patience is None or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def _advance(session: Session, progress: TrialProgress) -> dict[str, Any]:
    """Train until the next evaluation, evaluate, and append the row of that."""
    evaluation = len(progress.epochs) + 1
    settings, length = session.settings, session.length
    first, last = length.until(evaluation - 1), length.until(evaluation)
    result = train_steps(session, first, last)
    values = evaluate(session, session.examples.val, most=settings.evaluate.examples)
    if not math.isfinite(values[LOSS.name]):
        raise DivergedError(f"validation loss is {values[LOSS.name]} after epoch {evaluation}")
    ends = _ended(session, [*progress.losses, values[LOSS.name]])
    every = settings.probe.every
    worst = _probe(session, progress, evaluation) if ends or (every and evaluation % every == 0) else {}
    seen, tokens = last * session.batch_size, session.examples.shape.tokens_per_example
    measured = {
        **session.task.measured(result.values, session.examples, "train"),
        **session.task.measured(values, session.examples, "val"),
    }
    counted = {"examples_seen": seen, "tokens_seen": None if tokens is None else seen * tokens}
    row = {
        **progress.key,
        "epoch": evaluation,
        "step": last,
        "workers": session.place.world_size,
        **metric_columns(measured),
        **counted,
        "learning_rate": result.learning_rate,
        "gradient_norm": result.gradient_norm,
        "steps_skipped": result.skipped,
        **(result.streams.epoch_columns() if result.streams else {}),
        "epoch_s": result.time_s,
        "examples_per_s": result.examples / result.time_s,
        "tokens_per_s": None if tokens is None else result.examples * tokens / result.time_s,
        **worst,
    }
    progress.epochs.append(full_row("epochs", row))
    progress.columns.update(metric_columns(measured, progress.columns.get("metrics_json")))
    progress.columns.update(counted)
    if result.skipped is not None:
        progress.columns["steps_skipped"] = progress.columns.get("steps_skipped", 0) + result.skipped
    if result.streams is not None:
        progress.columns.update(result.streams.after(progress.columns))
    if ends:
        progress.columns.update(worst)
    return progress.epochs[-1]


def _probe(session: Session, progress: TrialProgress, epoch: int) -> dict[str, float]:
    """Probe on rank 0, while the others go on to wait for its next step."""
    settings = session.settings
    if session.sharded and strategy_of(settings).inverts and settings.probe.enabled:
        session = gathered(session)
    if session.place.rank != 0:
        return {}
    worst, blocks = probe(session)
    progress.blocks += [full_row("blocks", {**progress.key, "epoch": epoch, **block}) for block in blocks]
    return worst


def _rates(values: dict[str, Any], settings: TrialSettings, step_s: float | None) -> dict[str, Any]:
    """Tokens a second, and the share of what the devices can do that the model's own operations are."""
    if not step_s:
        return {}
    seen, tokens, rate = values.get("examples_seen"), values.get("tokens_seen"), values["examples_per_s"]
    asked, peak = values.get("flops_model"), peak_operations(values["device"], settings)
    return {
        "tokens_per_s": rate * tokens / seen if tokens and seen else None,
        "mfu": asked / step_s / (peak * settings.scaling.workers) if asked and peak else None,
    }


def _result(progress: TrialProgress, device: str, started_at: datetime, wall_s: float) -> TrialResult:
    settings, median_s = progress.trial.settings, progress.clock.median_s
    used = progress.columns.get("examples_train") or settings.train.batch_size
    batch_size = shared_batch(settings.train.batch_size, used, settings.scaling.workers)
    values = {
        **settings_columns(progress.trial, progress.attempt),
        **progress.columns,
        "epochs_done": len(progress.epochs),
        "steps_done": len(progress.clock.step_times_s),
        "wall_s": progress.wall_before_s + wall_s,
        "concurrent_trials": 1,
        **provenance(device),
        "started_at": started_at,
        "finished_at": datetime.now(UTC),
    }
    if settings.probe.cost:
        values["step_time_s"] = median_s
        values["examples_per_s"] = batch_size / median_s if median_s else None
        values.update(_rates(values, settings, median_s))
        values["train_s"] = progress.clock.total_s
    if device == "cpu":
        values["matmul"] = "not_applicable"
    return TrialResult(trial=full_row("trials", values), epochs=progress.epochs, blocks=progress.blocks)
