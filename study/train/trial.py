"""The training loop of one trial, from its settings to its rows. It imports no Ray, Optuna or pydantic.

One trial is: read the data, build the model on the trial's seed, measure the memory of one step, train and
validate for the epochs asked for, probe how faithfully activations are rebuilt, and read the test set once.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from study import outcomes
from study.data.load import load_data
from study.identity import resolve, strategy_of
from study.outcomes import DivergedError, StopError
from study.provenance import provenance
from study.settings import Trial
from study.store.rows import TrialResult, full_row, settings_columns
from study.train.build import build_model, matmul_precision
from study.train.evaluate import evaluate
from study.train.loop import train_epoch
from study.train.measurements import measure_memory, probe
from study.train.optim import make_optimizer
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
    concurrent_trials: int = 1,
) -> TrialResult:
    """Train one trial and return its rows, however it ends.

    Everything random follows from the trial's seed, and the caller's random state is left as it was: on a CPU
    the same trial gives the same numbers, bit for bit, and so does one resumed from a saved state.

    Args:
        trial: What to train.
        attempt: 0 for the first try; part of every row's key.
        on_epoch: Called with the epoch's row after each epoch, on every worker; a true answer ends the trial
            as ``pruned``, unless it was the last epoch.
        resume: A state that `save` was given, to go on from.
        save: Called after each epoch, on every worker, with a state that ``torch.load(weights_only=True)``
            can read back, and the epoch. The state refers to live tensors: write it before returning.
        distributed: This process' place in an initialized process group. The batch size is shared by the
            workers; every worker returns rows, and rank 0's are the ones to keep.
        deadline: Seconds since the Unix epoch after which the trial ends as ``timeout``.
        device: ``cpu`` or ``cuda``; None takes CUDA where there is one.
        concurrent_trials: Trials that may share the machine, recorded beside the times.

    Returns:
        TrialResult Rows with exactly the columns of `analysis.schema`. Exceptions become outcomes; only those
        that are not `Exception` (an interrupt) pass through.
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
    return _result(progress, device, started_at, time.perf_counter() - began, concurrent_trials)


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
    session = _open(progress, place, device, deadline)
    done = restore(session, progress, resume) if resume is not None else 0
    if resume is None:
        if progress.trial.settings.probe.cost:
            progress.columns.update(measure_memory(session))
        _probe(session, progress, 0)
    epochs = session.settings.train.epochs
    for epoch in range(done + 1, epochs + 1):
        row = _epoch(session, progress, epoch)
        if save is not None:
            save(state_of(session, progress, epoch, time.perf_counter() - began), epoch)
        stop = on_epoch(row) if on_epoch is not None else False
        if any_worker(session, bool(stop)) and epoch < epochs:
            raise StopError(f"stopped after epoch {epoch} of {epochs}")
    loss_test, accuracy_test = evaluate(session, session.data.test)
    progress.columns["loss_test"] = loss_test
    progress.columns["accuracy_test"] = accuracy_test if session.data.has_labels else None


def _open(
    progress: TrialProgress, place: Distributed, device: torch.device, deadline: float | None
) -> Session:
    """Read the data and build the model on the trial's seed."""
    settings = resolve(progress.trial.settings)
    data = load_data(settings.data).near(device)
    progress.columns.update(examples_train=len(data.train), num_classes=data.num_classes)
    torch.manual_seed(settings.seed)
    model = build_model(settings, data.shape)
    progress.columns["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    layout = torch.channels_last if settings.train.channels_last else torch.contiguous_format
    sharded = settings.scaling.parallel == "fsdp2" and torch.distributed.is_initialized()
    if sharded:
        layout = torch.contiguous_format  # the only one that FSDP2 takes
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if sharded:
        from study.train.sharding import shard

        shard(model, device)
    session = Session(
        settings=settings,
        data=data,
        model=model,
        network=strategy_of(settings).prepare(model),
        optimizer=make_optimizer(model, settings.train),
        scaler=torch.amp.GradScaler(device.type, enabled=settings.precision.compute == "fp16"),
        device=device,
        place=place,
        deadline=deadline,
        clock=progress.clock,
    )
    if place.world_size > 1:
        # Weights are equal by the seed; only what is random in the forward pass must differ.
        torch.manual_seed(settings.seed * place.world_size + place.rank)
        if not session.sharded:
            session.network = nn.parallel.DistributedDataParallel(model)
    return session


def _epoch(session: Session, progress: TrialProgress, epoch: int) -> dict[str, Any]:
    """Train and validate one epoch, and append its row."""
    result = train_epoch(session, epoch)
    loss_val, accuracy_val = evaluate(session, session.data.val)
    if not math.isfinite(loss_val):
        raise DivergedError(f"validation loss is {loss_val} after epoch {epoch}")
    labeled = session.data.has_labels
    settings = session.settings
    last, every = epoch == settings.train.epochs, settings.probe.every
    worst = _probe(session, progress, epoch) if last or (every and epoch % every == 0) else {}
    row = {
        **progress.key,
        "epoch": epoch,
        "step": epoch * session.steps_per_epoch,
        "workers": session.place.world_size,
        "loss_train": result.loss,
        "accuracy_train": result.accuracy if labeled else None,
        "loss_val": loss_val,
        "accuracy_val": accuracy_val if labeled else None,
        "learning_rate": result.learning_rate,
        "gradient_norm": result.gradient_norm,
        "steps_skipped": result.skipped,
        **(result.streams.epoch_columns() if result.streams else {}),
        "epoch_s": result.time_s,
        "examples_per_s": result.examples / result.time_s,
        **worst,
    }
    progress.epochs.append(full_row("epochs", row))
    progress.columns.update({name: row[name] for name in ("loss_train", "accuracy_train")})
    if result.skipped is not None:
        progress.columns["steps_skipped"] = progress.columns.get("steps_skipped", 0) + result.skipped
    if result.streams is not None:
        progress.columns.update(result.streams.after(progress.columns))
    progress.columns.update(loss_val=loss_val, accuracy_val=row["accuracy_val"])
    if last:
        progress.columns.update(worst)
    return progress.epochs[-1]


def _probe(session: Session, progress: TrialProgress, epoch: int) -> dict[str, float]:
    """Probe on rank 0, while the others go on to wait for its next step."""
    settings = session.settings
    if session.sharded and strategy_of(settings).inverts and settings.probe.enabled:
        session = _gathered(session)
    if session.place.rank != 0:
        return {}
    worst, blocks = probe(session)
    progress.blocks += [full_row("blocks", {**progress.key, "epoch": epoch, **block}) for block in blocks]
    return worst


def _gathered(session: Session) -> Session:
    """The session with the whole network on rank 0: what one worker does alone cannot gather shards."""
    from study.train.sharding import whole_weights

    weights = whole_weights(session.model)
    if session.place.rank != 0:
        return session
    with torch.random.fork_rng(devices=[]):
        model = build_model(session.settings, session.data.shape)
    model.load_state_dict(weights)
    return replace(session, model=model.to(session.device))


def _result(
    progress: TrialProgress, device: str, started_at: datetime, wall_s: float, concurrent_trials: int
) -> TrialResult:
    settings, median_s = progress.trial.settings, progress.clock.median_s
    used = progress.columns.get("examples_train")
    batch_size = settings.train.batch_size if used is None else min(settings.train.batch_size, used)
    batch_size -= batch_size % settings.scaling.workers
    values = {
        **settings_columns(progress.trial, progress.attempt),
        **progress.columns,
        "epochs_done": len(progress.epochs),
        "steps_done": len(progress.clock.step_times_s),
        "wall_s": progress.wall_before_s + wall_s,
        "concurrent_trials": concurrent_trials,
        **provenance(device),
        "started_at": started_at,
        "finished_at": datetime.now(UTC),
    }
    if settings.probe.cost:
        values["step_time_s"] = median_s
        values["examples_per_s"] = batch_size / median_s if median_s else None
        values["train_s"] = progress.clock.total_s
    if device == "cpu":
        values["matmul"] = "not_applicable"
    return TrialResult(trial=full_row("trials", values), epochs=progress.epochs, blocks=progress.blocks)
