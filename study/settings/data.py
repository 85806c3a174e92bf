"""Settings of what is learnt: the data, and the loss and metrics of the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from study.code import is_own
from study.errors import nearest
from study.settings.setting import IF_CHANGED, NEVER, NO_OPTIONS, BrokenRule, Options, Setting
from study.settings.strict import Strict

TEXTS = ("stdlib", "text:<path>", "tokens:<path>", "markov:<order>")
"""Kinds of data that are text."""
DATASETS = (
    *("digits", "synthetic", "cifar10", "cifar100", "imagenet", "parquet:<dir>", "folder:<dir>"),
    *("hf:<name>", *TEXTS),
)
RECIPES = ("crop", "imagenet")


def is_text(name: str) -> bool:
    """Whether the name of a data set is that of a text."""
    return name.partition(":")[0] in {kind.partition(":")[0] for kind in TEXTS}


def check_data_name(name: str) -> None:
    """Check the name of a data set; whether its files are there is seen when it is opened.

    Raises:
        BrokenRule: There is no such kind of data set, or its sizes or its folder are missing.
    """
    kind, colon, rest = name.partition(":")
    if kind == "hf" and colon:
        if not rest:
            raise BrokenRule("must name a data set after the colon", "for example hf:uoft-cs/cifar10")
    elif kind in ("parquet", "folder", "text", "tokens") and colon:
        if not rest:
            raise BrokenRule(
                "must name a folder after the colon", f"write {kind}:<dir>, such as {kind}:images"
            )
    elif kind == "markov" and colon:
        if not rest.isdecimal():
            raise BrokenRule("must give an order after the colon", "for example markov:2")
    elif kind == "synthetic" and colon:
        sizes = rest.split("x")
        if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            rule = "must give channels x height x width x classes as positive whole numbers"
            raise BrokenRule(rule, "for example synthetic:3x32x32x10")
        if sizes[1] != sizes[2]:
            remedy = f"for example synthetic:{sizes[0]}x{sizes[1]}x{sizes[1]}x{sizes[3]}"
            raise BrokenRule("must give square images", remedy)
    elif (name not in DATASETS or "<" in name) and not is_own("data.name", name):
        raise BrokenRule("must be a known data set", nearest(name, DATASETS))


@dataclass(frozen=True, kw_only=True)
class DataSettings(Strict):
    """What is learnt from. The validation set is part of the training pool; the test set is apart."""

    name: Annotated[
        str,
        Setting(
            "The data set: a built-in one, files of your own behind parquet:, folder:, text: or tokens:, or "
            "a function of your own as module:function.",
            check=check_data_name,
            identity=NEVER,
            column="data",
        ),
    ] = "digits"
    train_examples: Annotated[
        int | None,
        Setting("Training examples, a stratified subset; without it, all.", "examples", at_least=1),
    ] = None
    test_examples: Annotated[
        int | None, Setting("Test examples, a stratified subset; without it, all.", "examples", at_least=1)
    ] = None
    validation_fraction: Annotated[
        float, Setting("The share of the training pool that is kept for validation.", above=0, below=1)
    ] = 0.1
    augment: Annotated[
        bool | None,
        Setting("Whether training images are cropped and flipped at random; without it, the data set says."),
    ] = None
    label_noise: Annotated[
        float,
        Setting(
            "The share of training images that keep one wrong label throughout. Validation and test are as "
            "they were.",
            at_least=0,
            at_most=1,
            identity=IF_CHANGED,
            column="label_noise",
        ),
    ] = 0.0
    image_size: Annotated[
        int | None,
        Setting(
            "The side to which images in files are resized; without it, that of the first image.",
            "pixels",
            at_least=1,
        ),
    ] = None
    context_length: Annotated[
        int | None,
        Setting(
            "Tokens of a sequence of text; without it, 256.",
            "tokens",
            at_least=1,
            identity=IF_CHANGED,
            column="context_length",
        ),
    ] = None
    tokenizer: Annotated[
        str,
        Setting(
            "What cuts text into tokens: bytes, bpe:<vocabulary size> or file:<tokenizer.json>.",
            identity=NEVER,
        ),
    ] = "bytes"
    options: Annotated[
        Options, Setting("What a data set of your own is loaded with.", identity=IF_CHANGED)
    ] = NO_OPTIONS
    root: Annotated[
        str | None,
        Setting("The folder that holds the data sets; without it, REVSTUDY_DATA or data.", identity=NEVER),
    ] = None
    download: Annotated[
        bool, Setting("Whether torchvision may fetch a data set that is missing.", identity=NEVER)
    ] = False
    recipe: Annotated[
        str,
        Setting(
            "How training images are varied: crop pads, crops and flips them; imagenet cuts out parts of "
            "random size and shape, flips them and distorts their colors, and evaluates the middle.",
            choices=RECIPES,
            identity=IF_CHANGED,
        ),
    ] = "crop"
    loader_workers: Annotated[
        int,
        Setting(
            "Processes beside each worker that decode images which are not kept in memory.",
            "processes",
            at_least=0,
            identity=NEVER,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class TaskSettings(Strict):
    """What is learnt: the loss, and the metrics."""

    name: Annotated[
        str | None,
        Setting(
            "classification, language, or a class of your own as module:class; without it, what the data "
            "are for.",
            column="task",
        ),
    ] = None
    options: Annotated[Options, Setting("What a task of your own is made with.", identity=IF_CHANGED)] = (
        NO_OPTIONS
    )
