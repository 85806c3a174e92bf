"""Classification: examples with one label of several, cross-entropy and accuracy.

Shapes: N images of a batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from study.code import is_own
from study.data.augment import Draws, augment, draw
from study.data.lazy import LazyImages, Wanted
from study.data.load import SMALLEST_IMAGENET, DataShape, ImageData, load_data, training_images
from study.data.load import Split as Images
from study.data.load import data_shape as shape_of_data
from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings
from study.tasks.metrics import ACCURACY, LOSS, METRICS, Metric
from study.tasks.own_data import OwnSplit, count_classes, own_splits
from study.tasks.task import Batch, Examples, Split, Task, input_dtype, with_inputs


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """What a network for images has to fit.

    Attributes:
        input_shape: (C, H, W).
        num_classes: How many classes there are.
        stem: The stem of the presets for images of this size: ``cifar`` or ``imagenet``.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    stem: str

    @classmethod
    def of(cls, shape: DataShape) -> ImageShape:
        """The shape of a data set of square images."""
        return cls(
            input_shape=(shape.in_channels, shape.image_size, shape.image_size),
            num_classes=shape.num_classes,
            stem=shape.stem,
        )

    @property
    def preset_options(self) -> dict[str, Any]:
        """Arguments of `revmodels.create_model`."""
        return {"in_channels": self.input_shape[0], "num_classes": self.num_classes, "stem": self.stem}

    @property
    def tokens_per_example(self) -> int | None:
        """None: an image is no text."""
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSplit:
    """A split whose images are normalized and laid out as the trial asks for."""

    images: Images | LazyImages
    data: ImageData
    device: torch.device
    dtype: torch.dtype
    layout: torch.memory_format

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index_N: Tensor) -> Batch:
        """Normalized inputs (N, C, H, W) and targets (N,)."""
        return self.prepared(self.images[index_N], index_N)

    def batches(self, plan: Iterable[tuple[Tensor, Any]]) -> Iterator[tuple[Batch, Any]]:
        """The batches of a plan, varied as they were decoded if that is how they are varied.

        Yields:
            A batch, and what was drawn for it.
        """
        planned: deque[tuple[Tensor, Any]] = deque()
        for images_NCHW in self.images.read(_noted(plan, planned)):
            index_N, draws = planned.popleft()
            yield self.prepared(images_NCHW, index_N), draws

    def prepared(self, images_NCHW: Tensor, index_N: Tensor) -> Batch:
        """Images as stored, normalized, with their labels."""
        inputs_NCHW = self.data.normalize(images_NCHW.to(self.device), self.dtype)
        return Batch(
            inputs=(inputs_NCHW.contiguous(memory_format=self.layout),),
            targets=self.images.labels_N[index_N].to(self.device),
        )


@dataclass(kw_only=True, eq=False)
class LabeledImages(Examples):
    """Images with their labels, cropped and flipped at random in training if the data say so."""

    data: ImageData
    layout: torch.memory_format

    def training(self, plan: Iterable[tuple[Tensor, Any]]) -> Iterator[Batch]:
        """Training batches, decoded some batches ahead where the data have processes for that."""
        assert isinstance(self.train, ImageSplit)
        for batch, draws in self.train.batches(plan):
            yield self.augmented(batch, draws)

    def evaluation(self, split: Split, parts: Iterable[Tensor]) -> Iterator[Batch]:
        """Batches of a split, likewise."""
        assert isinstance(split, ImageSplit)
        for batch, _ in split.batches((part, None) for part in parts):
            yield batch

    def draw(self, count: int, generator: torch.Generator) -> Draws | Tensor | None:
        """Corners and flips, or the seed of what varies each image as it is decoded."""
        if self.data.recipe != "crop":
            return torch.randint(2**31, (count,), generator=generator)
        return draw(self.data.augmentation, count, generator) if self.data.augmentation else None

    def augmented(self, batch: Batch, draws: Draws | Tensor | None) -> Batch:
        """The batch cropped and flipped."""
        if self.data.augmentation is None or not isinstance(draws, Draws):
            return batch
        inputs_NCHW = augment(batch.inputs[0], self.data.augmentation, draws)
        return with_inputs(batch, inputs_NCHW.contiguous(memory_format=self.layout))


class Classification(Task):
    """One label of several for each example."""

    name = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS["classification"]
    score = "accuracy"

    def shape(self, settings: TrialSettings) -> ImageShape:
        """Image size, channels and classes, from a single image."""
        if is_own("data.name", settings.data.name):
            return _own_shape(settings)
        return ImageShape.of(shape_of_data(settings.data))

    def training_examples(self, settings: TrialSettings) -> int:
        """Images that a trial trains on; none is read."""
        if is_own("data.name", settings.data.name):
            return len(_own(settings, torch.device("cpu"))["train"])
        return training_images(settings.data)

    def open(self, settings: TrialSettings, device: torch.device) -> Examples:
        """The images of the three splits."""
        if is_own("data.name", settings.data.name):
            shape = _own_shape(settings)
            splits: dict[str, Any] = _own(settings, device)
            return Examples(**splits, shape=shape, columns={"num_classes": shape.num_classes})
        data = load_data(settings.data).near(device)
        layout = _layout(settings.train)

        def split(images: Images | LazyImages) -> ImageSplit:
            return ImageSplit(
                images=images, data=data, device=device, dtype=input_dtype(settings), layout=layout
            )

        return LabeledImages(
            train=split(data.train),
            val=split(data.val),
            test=split(data.test),
            shape=ImageShape.of(data.shape),
            evaluation_batch=512 if data.in_memory else 64,
            columns={"num_classes": data.num_classes},
            without=frozenset() if data.has_labels else frozenset({ACCURACY.name}),
            data=data,
            layout=layout,
        )

    def blank(self, shape: ImageShape, count: int, settings: TrialSettings) -> Batch:
        """Images and labels without content."""
        images = torch.empty(count, *shape.input_shape, dtype=input_dtype(settings))
        return Batch(inputs=(images,), targets=torch.empty(count, dtype=torch.long))

    def loss(self, outputs: Tensor, batch: Batch, train: TrainSettings) -> Tensor:
        """Cross-entropy of logits (N, classes), of smoothed labels if the training asks for it."""
        return F.cross_entropy(outputs, batch.targets, label_smoothing=train.label_smoothing)

    def sums(self, outputs: Tensor, batch: Batch, loss: float | None = None) -> Tensor:
        """Cross-entropy, right answers, and examples."""
        if loss is None:
            total = F.cross_entropy(outputs, batch.targets, reduction="sum").item()
        else:
            total = loss * len(batch)
        correct = int((outputs.argmax(1) == batch.targets).sum())
        return torch.tensor([total, correct, len(batch)], dtype=torch.float64)

    def values(self, sums: Tensor) -> dict[str, float]:
        """Mean cross-entropy, and accuracy."""
        loss, correct, examples = sums.tolist()
        return {LOSS.name: loss / examples, ACCURACY.name: correct / examples}


def _own(settings: TrialSettings, device: torch.device) -> dict[str, OwnSplit]:
    splits = own_splits(settings, device, input_dtype(settings))
    classes = count_classes(settings)
    return {name: replace(split, classes=classes) for name, split in splits.items()}


def _own_shape(settings: TrialSettings) -> ImageShape:
    first = _own(settings, torch.device("cpu"))["train"].batch(torch.zeros(1, dtype=torch.long))
    shape = tuple(first.inputs[0].shape[1:])
    return ImageShape(
        input_shape=shape,
        num_classes=count_classes(settings),
        stem="imagenet" if shape and shape[-1] >= SMALLEST_IMAGENET else "cifar",
    )


def _noted(plan: Iterable[tuple[Tensor, Any]], planned: deque[tuple[Tensor, Any]]) -> Iterator[Wanted]:
    """What is to be decoded, while the whole plan is noted: it is read ahead of what is decoded."""
    for index_N, draws in plan:
        planned.append((index_N, draws))
        yield index_N, draws if isinstance(draws, Tensor) else None


def _layout(train: TrainSettings) -> torch.memory_format:
    return torch.channels_last if train.channels_last else torch.contiguous_format
