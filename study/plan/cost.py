"""What a network takes: its parameters, and the bytes of one training step, predicted on fake tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from study.code import use
from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings
from study.tasks.registry import task_of
from study.tasks.task import Shape, Task
from study.train.build import build_model, network_settings, outline
from study.train.length import shared_batch
from study.train.measurements import peak_in_parts, predicted_growth
from study.train.operations import step_operations
from study.train.optim import make_optimizer

_WITHOUT_COST = (
    *("epochs", "steps", "tokens", "batch_size", "learning_rate", "schedule", "patience"),
    *("warmup_epochs", "warmup_steps", "decay_fraction", "clip_norm", "label_smoothing"),
)
"""Settings of the training that do not change what a step takes: equal models are computed once."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a trial's model takes: trainable parameters, and bytes of one training step on one worker; and
    how much its couplings make errors grow while activations are rebuilt, None where none are.
    """

    parameters: int
    memory_bytes: int
    activation_bytes: int
    coupling_growth: float | None = None


def trial_operations(settings: TrialSettings) -> tuple[int, int | None]:
    """Return the floating-point operations of a step of a trial, over all workers: the model's, and those
    that its memory strategy really makes, None where a compiler decides.

    Raises:
        DataError: The data set is missing: what the network has to fit is needed.
    """
    return step_operations(settings, step_examples(settings))


def step_examples(settings: TrialSettings) -> int:
    """Return the examples of a step of a trial, over all workers.

    Raises:
        DataError: The data set is missing: it may hold fewer than a batch.
    """
    examples = task_of(settings).training_examples(settings)
    return shared_batch(settings.train.batch_size, examples, settings.scaling.workers)


def trial_cost(settings: TrialSettings) -> Cost:
    """Return parameters and predicted memory of a trial, on fake tensors; equal models are computed once.

    Of a sharded network (`fsdp2`) it is an estimate: whole activations, and a worker's share of all else.
    Of a compiled one it is what the network takes that is not compiled, which is more.

    Raises:
        DataError: The data set is missing: its image size and classes are needed.
    """
    use(settings.code)
    train, task = settings.train, task_of(settings)
    batch = -(-train.batch_size // (settings.scaling.workers * train.accumulate))
    alike = replace(train, **{name: getattr(TrainSettings, name) for name in _WITHOUT_COST})
    cost = _cost(network_settings(settings, train=alike), task, task.shape(settings), max(1, batch))
    if settings.scaling.parallel == "ddp":
        return cost
    rest = cost.memory_bytes - cost.activation_bytes
    return replace(cost, memory_bytes=cost.activation_bytes + rest // settings.scaling.workers)


@lru_cache(maxsize=1024)
def _cost(settings: TrialSettings, task: Task, shape: Shape, count: int) -> Cost:
    from revmodels import measure

    network, batch = outline(settings, task, shape, count)
    taken = measure.predict_memory(
        network,
        (batch.inputs, batch.targets),
        lambda parameters: make_optimizer(network, settings.train, parameters),
        loss=lambda outputs, targets: task.loss(outputs, replace(batch, targets=targets), settings.train),
    )
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    peak = peak_in_parts(taken, settings.train.accumulate)
    return Cost(
        parameters=trained,
        memory_bytes=peak,
        activation_bytes=taken.activation_bytes,
        coupling_growth=predicted_growth(settings, network),
    )


def count_parameters(settings: TrialSettings) -> int:
    """Return the trainable parameters of a trial's network, which is built without memory; equal ones are
    built once.

    Raises:
        DataError: The data set is missing: its image size and classes are needed.
    """
    return _count(network_settings(settings), task_of(settings).shape(settings))


@lru_cache(maxsize=1024)
def _count(settings: TrialSettings, shape: Shape) -> int:
    import torch

    with torch.device("meta"):
        network = build_model(settings, shape)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
