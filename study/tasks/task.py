"""The contract of a task: what a network is told, batches, a loss, and metrics as sums.

A task holds no state. What belongs to one trial's data is an `Examples`, which `Task.open` makes. Batches
follow from the trial's seed and the number of the step alone (`study.train.batches`).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings
from study.tasks.metrics import LOSS, Metric

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Examples on the device of the training.

    Attributes:
        inputs: What the network is called with; the first dimension of each tensor counts the examples.
        targets: What it is to answer; likewise.
        extras: What the metrics need besides; likewise.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def parts(self, count: int) -> list[Batch]:
        """The batch in `count` parts, equal but for one example; fewer if there are fewer examples."""
        if count == 1:
            return [self]
        bounds = [len(self) * i // count for i in range(count + 1)]
        return [self[slice(a, b)] for a, b in itertools.pairwise(bounds) if b > a]

    def __getitem__(self, part: slice) -> Batch:
        return Batch(
            inputs=tuple(t[part] for t in self.inputs),
            targets=self.targets[part],
            extras={name: t[part] for name, t in self.extras.items()},
        )


class Split(Protocol):
    """Examples that can be had in any order."""

    def __len__(self) -> int: ...

    def batch(self, index_N: Tensor) -> Batch:
        """The examples at these positions, int64 of shape (N,), on the device of the training."""
        ...


class Shape(Protocol):
    """What a network has to fit. It is hashable, and known before the data are read whole."""

    @property
    def preset_options(self) -> dict[str, Any]:
        """Arguments of `revmodels.create_model`."""
        ...

    @property
    def tokens_per_example(self) -> int | None:
        """How many tokens an example has; None where examples have none."""
        ...


@dataclass(kw_only=True, eq=False)
class Examples:
    """The data of a task, opened for one trial.

    Attributes:
        train, val, test: The three splits; they share no example.
        shape: What a network has to fit.
        evaluation_batch: Examples that are evaluated at once.
        columns: Of the trial's row.
        without: Metrics that mean nothing on these data, and are recorded as null.
    """

    train: Split
    val: Split
    test: Split
    shape: Shape
    evaluation_batch: int = 512
    columns: Mapping[str, Any] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    def training(self, plan: Iterable[tuple[Tensor, Any]]) -> Iterator[Batch]:
        """Training batches in the order of a plan, which may be read some batches ahead.

        Args:
            plan: The positions of each batch, int64 of shape (N,), and what was drawn for them.

        Yields:
            A batch for each part of the plan.
        """
        for index_N, draws in plan:
            batch = self.train.batch(index_N)
            yield batch if draws is None else self.augmented(batch, draws)

    def evaluation(self, split: Split, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """Batches of a split as it is, of these positions, which may be read some batches ahead."""
        for index_N in parts:
            yield split.batch(index_N)

    def draw(self, count: int, generator: torch.Generator) -> Any:
        """What augments `count` training examples, drawn on the CPU; None if nothing is.

        Returns:
            What can be sliced: a slice of it is a worker's share.
        """
        return None

    def augmented(self, batch: Batch, draws: Any) -> Batch:
        """A batch of training examples, changed as its share of what was drawn says."""
        return batch


class Task(ABC):
    """What is learnt.

    Attributes:
        name: In rows and study files.
        metrics: The loss first. Each has columns of its name for training, validation and test.
        score: The metric by which unpromising trials are told.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)
    score: ClassVar[str] = "loss"

    def check(self, settings: TrialSettings) -> None:
        """Refuse settings that mean nothing to this task; of the data, nothing is read.

        Raises:
            StudyError: There are some.
        """
        return

    @abstractmethod
    def shape(self, settings: TrialSettings) -> Any:
        """What a network has to fit, a `Shape`; read from as little as possible.

        Raises:
            DataError: The data are missing or of another layout.
        """

    @abstractmethod
    def training_examples(self, settings: TrialSettings) -> int:
        """How many examples a trial trains on; as few as possible are read.

        Raises:
            DataError: The data are missing, of another layout, or fewer than asked for.
        """

    @abstractmethod
    def open(self, settings: TrialSettings, device: torch.device) -> Examples:
        """The data of a trial, whose batches arrive on `device`.

        Raises:
            DataError: The data are missing, of another layout, or fewer than asked for.
        """

    @abstractmethod
    def blank(self, shape: Any, count: int, settings: TrialSettings) -> Batch:
        """A batch of `count` examples without content, on the default device, laid out as in training."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch, train: TrainSettings) -> Tensor:
        """What is minimized: a scalar, the mean over the terms that `weight` counts."""

    @abstractmethod
    def sums(self, outputs: Any, batch: Batch, loss: float | None = None) -> Tensor:
        """The sums of the metrics over a batch: float64, one dimension, on the CPU.

        Args:
            outputs: Of the network.
            batch: What it was called with.
            loss: The value of the loss, where it was computed already and is what the metric reports.
        """

    @abstractmethod
    def values(self, sums: Tensor) -> dict[str, float]:
        """The metrics by name, from sums over any number of batches."""

    def adapted(self, model: nn.Module) -> nn.Module:
        """The network as the task calls it; most are called as they are."""
        return model

    def weight(self, batch: Batch) -> int | None:
        """How many terms the loss of a batch is the mean of; None stands for one an example."""
        return None

    def measured(self, values: Mapping[str, float], examples: Examples, split: str) -> dict[str, Any]:
        """The columns of a split, null for metrics that mean nothing on these data."""
        return {
            metric.column(split): None if metric.name in examples.without else values[metric.name]
            for metric in self.metrics
        }


def evenly(count: int, most: int | None) -> Tensor:
    """Return positions 0 to `count` - 1, or `most` of them at equal distances.

    >>> evenly(10, 3)
    tensor([0, 3, 6])
    """
    if most is None or most >= count:
        return torch.arange(count)
    return torch.arange(most) * count // most


def input_dtype(settings: TrialSettings) -> torch.dtype:
    """Of real inputs: that of the parameters."""
    return torch.float64 if settings.precision.compute == "fp64" else torch.float32


def with_inputs(batch: Batch, *inputs: Tensor) -> Batch:
    """The same batch with other inputs."""
    return replace(batch, inputs=inputs)
