"""What is measured beside the training: the memory of one step, and the fidelity of rebuilt activations."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from revmodels import ReversibleSequence, measure
from revmodels.strategies.registry import find_strategy
from study.identity import strategy_of
from study.settings.trial import TrialSettings
from study.train.batches import training_batches
from study.train.session import Session


def measure_memory(session: Session) -> dict[str, Any]:
    """The memory columns of a trial's row: one training step on its first batch, which leaves no trace."""
    if session.sharded and session.device.type != "cuda":
        return {}  # shards come and go inside FSDP's storages, which the tracker does not see
    model = session.network if strategy_of(session.settings).whole_network else session.model
    model.train()
    task, train = session.task, session.settings.train
    batch = next(training_batches(session, 0, 1)).parts(train.accumulate)[0]
    use = measure.peak_memory(
        model,
        (batch.inputs, batch.targets),
        session.optimizer,
        loss=lambda outputs, _: task.loss(outputs, batch, train),
    )
    return {
        "memory_peak_bytes": peak_in_parts(use, train.accumulate),
        "memory_activation_bytes": use.activation_bytes,
        "memory_parameter_bytes": use.parameter_bytes,
        "memory_gradient_bytes": use.gradient_bytes,
        "memory_optimizer_bytes": use.optimizer_bytes,
        "memory_buffer_bytes": use.buffer_bytes,
        "memory_saved_bytes": use.saved_bytes,
        "memory_side_bytes": use.side_bytes,
        "memory_source": use.source,
    }


def peak_in_parts(use: measure.MemoryUse, parts: int) -> int:
    """Return the peak of a step that takes its batch in so many parts, from what one part takes.

    In later parts all gradients are there, and from the second step on the optimizer's state too.
    """
    if parts == 1:
        return use.total_bytes
    kept = use.parameter_bytes + use.gradient_bytes + use.optimizer_bytes + use.buffer_bytes
    return max(use.total_bytes, kept + use.activation_bytes + use.input_bytes)


def predicted_growth(settings: TrialSettings, network: nn.Module) -> float | None:
    """Return how much an error in the last pair grows until the first is rebuilt, by the couplings' numbers.

    Args:
        settings: Of the trial, resolved.
        network: What it trains.

    Returns:
        The largest factor over the sequences of the network; None where nothing is rebuilt, or where it is
        beyond the range of floats.
    """
    if not find_strategy(settings.memory.strategy or "store").inverts:
        return None
    sequences = [m for m in network.modules() if isinstance(m, ReversibleSequence)]
    largest = max((sequence.inverse_error_growth for sequence in sequences), default=math.inf)
    return largest if math.isfinite(largest) else None


def probe(session: Session) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the fidelity of the rebuilt activations on a fixed batch: the worst figures, and a row for each
    block.

    No figures for a model that rebuilds nothing.
    """
    settings = session.settings
    if not (strategy_of(settings).inverts and settings.probe.enabled):
        return {}, []
    session.model.train()
    examples, task = session.examples, session.task
    batch = examples.train.batch(torch.arange(min(settings.probe.examples, len(examples.train))))
    result = measure.fidelity(
        session.model,
        (batch.inputs, batch.targets),
        loss=lambda outputs, _: task.loss(outputs, batch, session.plain),
        reference=settings.probe.reference,
    )
    rebuilds = any(block.reconstruction_rel_error is not None for block in result.blocks)
    constants = measure.lipschitz(session.model, batch.inputs[0]) if settings.probe.lipschitz else ()
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
