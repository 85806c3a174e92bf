"""How long a training is, and after which of its steps the network is evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass

from study.errors import StudyError
from study.settings.trial import TrialSettings
from study.tasks.registry import task_of

EVALUATIONS = 10
"""Of a training that is so many steps or tokens long, where the study file does not say."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """A training in steps of the optimizer.

    Attributes:
        steps: All of them.
        steps_per_epoch: Those of one pass over the training set.
        every: Steps from one evaluation to the next; the last step is always followed by one.
    """

    steps: int
    steps_per_epoch: int
    every: int

    @property
    def evaluations(self) -> int:
        """How often the network is evaluated."""
        return math.ceil(self.steps / self.every)

    def until(self, evaluation: int) -> int:
        """The steps that are done when it is evaluated, the first evaluation being number 1."""
        return min(self.steps, evaluation * self.every)


def shared_batch(batch_size: int, examples: int, workers: int) -> int:
    """Return the examples of a step over all workers: the batch, or all that there are, in equal shares."""
    size = min(batch_size, examples)
    return size - size % workers


def length_of(
    settings: TrialSettings, *, examples: int, tokens_per_example: int | None, workers: int
) -> Length:
    """Return how long the training of a trial is.

    Args:
        settings: Its lengths, and when it is evaluated.
        examples: How many there are to train on.
        tokens_per_example: Of a task with tokens.
        workers: Data-parallel workers, at present.

    Raises:
        StudyError: A length in tokens of a task without any.
    """
    train, evaluate = settings.train, settings.evaluate
    batch = shared_batch(train.batch_size, examples, workers)
    per_epoch = examples // batch
    if train.steps is not None:
        steps = train.steps
    elif train.tokens is not None:
        if tokens_per_example is None:
            raise StudyError(
                "train.tokens",
                value=train.tokens,
                rule="is a length for tasks with tokens, and these examples have none",
                remedy="use train.epochs or train.steps",
            )
        steps = math.ceil(train.tokens / (batch * tokens_per_example))
    else:
        steps = train.epochs * per_epoch
    unit = evaluate.unit or ("epochs" if train.by_epoch else "steps")
    if evaluate.every is not None:
        every = evaluate.every * (per_epoch if unit == "epochs" else 1)
    else:
        every = per_epoch if unit == "epochs" else math.ceil(steps / EVALUATIONS)
    return Length(steps=steps, steps_per_epoch=per_epoch, every=every)


def evaluations(settings: TrialSettings) -> int:
    """Return how often a trial is evaluated. Its data are looked at only if that has to do with their number.

    Raises:
        StudyError: The data are missing, or the length is in tokens of a task without any.
    """
    train, evaluate = settings.train, settings.evaluate
    length, unit = (train.epochs, "epochs") if train.steps is None else (train.steps, "steps")
    if train.tokens is None and evaluate.unit in (None, unit):
        every = evaluate.every or (1 if unit == "epochs" else math.ceil(length / EVALUATIONS))
        return math.ceil(length / every)
    task = task_of(settings)
    return length_of(
        settings,
        examples=task.training_examples(settings),
        tokens_per_example=task.shape(settings).tokens_per_example,
        workers=settings.scaling.workers,
    ).evaluations
