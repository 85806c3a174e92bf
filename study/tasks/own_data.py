"""Data that a study brings along: ``load(**options)`` gives map-style data sets of (input, target) by split.

It returns ``{"train": …, "test": …}``, perhaps with ``"val"``. An item is a pair of tensors, of equal shapes
and types throughout. Without a validation set, the trial keeps a share of the training set for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from study.code import call, find
from study.errors import DataError
from study.settings.data import DataSettings
from study.settings.setting import Options
from study.settings.trial import TrialSettings
from study.tasks.task import SPLITS, Batch, evenly

NAME = "data.name"


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnSplit:
    """Some items of a data set, on a device.

    Attributes:
        items: The data set.
        index_N: Which of its items, int64.
        name: ``train``, ``val`` or ``test``, for messages.
        device: Where batches go.
        dtype: Of real inputs.
        classes: Targets are below it; None if they are no classes.
    """

    items: Any
    index_N: Tensor
    name: str
    device: torch.device
    dtype: torch.dtype
    classes: int | None = None

    def __len__(self) -> int:
        return len(self.index_N)

    def batch(self, index_N: Tensor) -> Batch:
        """The examples at these positions.

        Returns:
            Inputs and targets, stacked.

        Raises:
            DataError: An item is no pair of tensors, is not like the others, or has a target out of range;
                the message names it.
        """
        rows = self.index_N[index_N].tolist()
        items = [pair(self.items, row, self.name) for row in rows]
        first = items[0]
        for row, item in zip(rows, items, strict=True):
            for part, like, what in zip(item, first, ("input", "target"), strict=True):
                if (part.shape, part.dtype) != (like.shape, like.dtype):
                    raise DataError(
                        NAME,
                        value=f"{tuple(part.shape)} of {part.dtype}",
                        rule=f"items must be alike: the {what} of item {row} of {self.name} is not as that "
                        f"of item {rows[0]}, {tuple(like.shape)} of {like.dtype}",
                        remedy="let the data set bring them to one shape and type",
                    )
            if self.classes is not None and not 0 <= int(item[1]) < self.classes:
                raise DataError(
                    NAME,
                    value=int(item[1]),
                    rule=f"the target of item {row} of {self.name} must be from 0 to {self.classes - 1}",
                    remedy="correct it, or the num_classes of the data set",
                )
        inputs, targets = (torch.stack(parts).to(self.device) for parts in zip(*items, strict=True))
        if inputs.is_floating_point():
            inputs = inputs.to(self.dtype)
        return Batch(inputs=(inputs,), targets=targets)


def pair(items: Any, row: int, split: str) -> tuple[Tensor, Tensor]:
    """One item as tensors.

    Returns:
        Input and target.

    Raises:
        DataError: It cannot be read, or is no pair.
    """
    try:
        item = items[row]
    except Exception as error:
        raise DataError(
            NAME,
            value=row,
            rule=f"item {row} of {split} must be readable ({type(error).__name__}: {error})",
            remedy="correct it, or leave it out",
        ) from error
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise DataError(
            NAME,
            value=type(item).__name__,
            rule=f"item {row} of {split} must be a pair of input and target",
            remedy="return (input, target)",
        )
    found, target = item
    if not isinstance(found, Tensor):
        raise DataError(
            NAME,
            value=type(found).__name__,
            rule=f"the input of item {row} of {split} must be a tensor",
            remedy="convert it in the data set",
        )
    return found, torch.as_tensor(target)


def own_splits(settings: TrialSettings, device: torch.device, dtype: torch.dtype) -> dict[str, OwnSplit]:
    """The three splits of data that a study brings along.

    Returns:
        By ``train``, ``val`` and ``test``.

    Raises:
        DataError: A split is missing or empty, or there are fewer items than asked for.
        StudyError: They cannot be loaded.
    """
    data = settings.data
    sets = _loaded(data.name, data.options, settings.code)
    train, val = torch.arange(len(sets["train"])), None
    if "val" not in sets:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        count = max(1, round(data.validation_fraction * len(order)))
        val, train = order[:count], order[count:]
    indices = {
        "train": _some(train, data.train_examples, "train"),
        "val": torch.arange(len(sets["val"])) if val is None else val,
        "test": _some(torch.arange(len(sets["test"])), data.test_examples, "test"),
    }
    return {
        split: OwnSplit(
            items=sets.get(split, sets["train"]), index_N=index, name=split, device=device, dtype=dtype
        )
        for split, index in indices.items()
    }


def _some(index_N: Tensor, most: int | None, split: str) -> Tensor:
    if most is not None and most > len(index_N):
        raise DataError(
            f"data.{split}_examples", value=most, rule=f"there are {len(index_N)}", remedy="ask for fewer"
        )
    return index_N[evenly(len(index_N), most)]


@lru_cache(maxsize=8)
def _loaded(name: str, options: Options, folder: str | None) -> Mapping[str, Any]:
    sets = call(NAME, name, find(NAME, name, folder), options=dict(options))
    rule = 'must return {"train": data set, "test": data set}, perhaps with "val"'
    if not isinstance(sets, Mapping) or not {"train", "test"} <= set(sets) <= set(SPLITS):
        held = sorted(map(str, sets)) if isinstance(sets, Mapping) else type(sets).__name__
        raise DataError(NAME, value=held, rule=f"{name} {rule}", remedy="name the splits so")
    for split, items in sets.items():
        if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            raise DataError(
                NAME,
                value=type(items).__name__,
                rule=f"the {split} set must be map-style, with a length and items by number",
                remedy="derive it from torch.utils.data.Dataset",
            )
        if not len(items):
            raise DataError(NAME, value=0, rule=f"the {split} set must not be empty", remedy="give it items")
    if "val" not in sets and len(sets["train"]) < 2:
        raise DataError(
            NAME, value=1, rule="the train set must have an item for validation", remedy='give a "val" set'
        )
    return sets


def said_of(settings: TrialSettings, name: str) -> Any:
    """What the training set says of itself under an attribute, such as ``num_classes``; None if nothing."""
    data = settings.data
    return getattr(_loaded(data.name, data.options, settings.code)["train"], name, None)


def count_classes(settings: TrialSettings) -> int:
    """Return the number of classes: what the training set says, or else one more than its largest target."""
    said = said_of(settings, "num_classes")
    if said is None and said_of(settings, "classes") is not None:
        said = len(said_of(settings, "classes"))
    return int(said) if said is not None else _largest(settings.data, settings.code) + 1


@lru_cache(maxsize=8)
def _largest(data: DataSettings, folder: str | None) -> int:
    items = _loaded(data.name, data.options, folder)["train"]
    return max(int(pair(items, row, "train")[1]) for row in range(len(items)))
