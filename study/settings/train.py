"""Settings of the training: its length, its optimizer, and when the network is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from study.settings.setting import IF_CHANGED, NO_OPTIONS, Options, Setting
from study.settings.strict import Strict

OPTIMIZERS = ("sgd", "adamw", "adam", "muon")
ADAMS = ("adamw", "adam", "muon")
"""Optimizers with the two averages of Adam; Muon leaves embeddings, biases and gains to AdamW."""
SCHEDULES = ("cosine", "step", "constant", "linear", "wsd")
EVALUATION_UNITS = ("epochs", "steps")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Strict):
    """One training run."""

    epochs: Annotated[
        int,
        Setting(
            "How often the training set is passed, unless steps or tokens say how long training is.",
            "epochs",
            at_least=1,
            unless=("steps", "tokens"),
            column="epochs",
        ),
    ] = 10
    steps: Annotated[
        int | None,
        Setting(
            "Optimizer steps of the training, in place of epochs.",
            "steps",
            at_least=1,
            identity=IF_CHANGED,
            column="steps",
        ),
    ] = None
    tokens: Annotated[
        int | None,
        Setting(
            "Tokens that are learnt from, in place of epochs; rounded up to whole steps.",
            "tokens",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None
    batch_size: Annotated[
        int,
        Setting(
            "Examples of an optimizer step, over all workers.", "examples", at_least=1, column="batch_size"
        ),
    ] = 128
    accumulate: Annotated[
        int,
        Setting(
            "Parts in which the batch of a step goes through the network, which saves memory.",
            "parts",
            at_least=1,
            identity=IF_CHANGED,
            column="accumulate",
        ),
    ] = 1
    optimizer: Annotated[
        str,
        Setting(
            "The optimizer: sgd with momentum, adam, adamw, or muon for matrices with AdamW for the rest; or "
            "a function of your own as module:function.",
            choices=OPTIMIZERS,
            importable=True,
            column="optimizer",
        ),
    ] = "sgd"
    optimizer_options: Annotated[
        Options, Setting("What an optimizer of your own is made with.", identity=IF_CHANGED)
    ] = NO_OPTIONS
    learning_rate: Annotated[
        float, Setting("The highest learning rate of the schedule.", above=0, column="learning_rate")
    ] = 0.1
    momentum: Annotated[
        float, Setting("The momentum of SGD.", at_least=0, below=1, only_with=("optimizer", "sgd"))
    ] = 0.9
    nesterov: Annotated[
        bool,
        Setting(
            "Whether SGD looks ahead along its momentum (Nesterov).",
            identity=IF_CHANGED,
            only_with=("optimizer", "sgd"),
        ),
    ] = False
    beta1: Annotated[
        float,
        Setting(
            "The decay of Adam's average of gradients.",
            at_least=0,
            below=1,
            identity=IF_CHANGED,
            only_with=("optimizer", ADAMS),
        ),
    ] = 0.9
    beta2: Annotated[
        float,
        Setting(
            "The decay of Adam's average of squared gradients.",
            at_least=0,
            below=1,
            identity=IF_CHANGED,
            only_with=("optimizer", ADAMS),
        ),
    ] = 0.999
    fused: Annotated[
        bool,
        Setting("Whether the optimizer updates all parameters in one kernel.", identity=IF_CHANGED),
    ] = False
    weight_decay: Annotated[
        float,
        Setting(
            "The decay of the weights of convolutions and linear layers.", at_least=0, column="weight_decay"
        ),
    ] = 2e-4
    schedule: Annotated[
        str,
        Setting("How the learning rate goes on after the warm-up.", choices=SCHEDULES, column="schedule"),
    ] = "cosine"
    warmup_epochs: Annotated[
        float,
        Setting(
            "Epochs in which the learning rate rises to its peak, unless warmup_steps says it in steps.",
            "epochs",
            at_least=0,
            unless=("warmup_steps",),
        ),
    ] = 0.0
    warmup_steps: Annotated[
        int | None,
        Setting(
            "Steps in which the learning rate rises to its peak, in place of warmup_epochs.",
            "steps",
            at_least=0,
            identity=IF_CHANGED,
        ),
    ] = None
    decay_fraction: Annotated[
        float,
        Setting(
            "With wsd, the share of all steps at the end in which the learning rate falls to 0.",
            above=0,
            at_most=1,
            identity=IF_CHANGED,
            only_with=("schedule", "wsd"),
        ),
    ] = 0.2
    clip_norm: Annotated[
        float | None,
        Setting(
            "The norm to which larger gradients are scaled down; without it, they stay as they are.", above=0
        ),
    ] = None
    label_smoothing: Annotated[
        float, Setting("The share of each target that is spread over all classes.", at_least=0, below=1)
    ] = 0.0
    patience: Annotated[
        int | None,
        Setting(
            "Evaluations without a lower validation loss after which training ends; without it, never.",
            "evaluations",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None
    channels_last: Annotated[
        bool, Setting("Whether images and weights lie in memory with the channels last.")
    ] = True

    @property
    def by_epoch(self) -> bool:
        """Whether `epochs` says how long the training is."""
        return self.steps is None and self.tokens is None


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Strict):
    """When the network is evaluated, which writes a row and a checkpoint; the last step is always followed
    by an evaluation.
    """

    every: Annotated[
        int | None,
        Setting(
            "The distance of evaluations; without it, each epoch, or ten in a training of so many steps.",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None
    unit: Annotated[
        str | None,
        Setting(
            "What the distance is counted in; without it, in what the length of the training is.",
            choices=EVALUATION_UNITS,
            identity=IF_CHANGED,
        ),
    ] = None
    examples: Annotated[
        int | None,
        Setting(
            "Validation examples of an evaluation, spread evenly over all; without it, all.",
            "examples",
            at_least=1,
            identity=IF_CHANGED,
        ),
    ] = None
