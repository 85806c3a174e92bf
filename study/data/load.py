"""Data sets of images, split into train, validation and test, behind one function: `load_data`.

Validation is taken from the training pool and steers; the test set is read once, at the end of a trial. Both
depend on the data set alone and not on a trial's seed, so trials that differ in seed share them. Subsets are
stratified and nested: a larger `train_examples` contains a smaller one.

A data set whose decoded images take up to `DECODED_BYTES` is kept in memory. The images of a larger one are
decoded when they are asked for (`study.data.lazy`), and its mean and deviation are those of `SAMPLE` training
images.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from study.data import sources
from study.data.augment import Augmentation
from study.data.decode import Decoder, decode
from study.data.lazy import LazyImages, Wanted
from study.errors import DataError
from study.settings.data import DataSettings

SMALLEST_AUGMENTED = 28
"""Images of fewer pixels a side are not augmented unless the study asks for it."""
DECODED_BYTES = 1 << 29
"""Data sets of files whose decoded images take up to this are kept in memory."""
RESIDENT_BYTES = 4 << 30
"""Data sets in memory of up to this size are kept on the GPU."""
SAMPLE = 1024
"""Training images that give the mean and deviation of a data set that is not in memory."""
_PROBED = 64
"""Images that say whether a data set is gray or in color."""
SMALLEST_IMAGENET = 96
"""Images from this size on get the ImageNet stem, which halves their size twice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images as stored, uint8 of shape (N, C, H, W), and their int64 labels of shape (N,)."""

    images_NCHW: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images_NCHW.shape
        return channels, height, width

    def __getitem__(self, index_N: Tensor) -> Tensor:
        """Images as uint8 of shape (N, C, H, W)."""
        return self.images_NCHW[index_N]

    def read(self, wanted: Iterable[Wanted]) -> Iterator[Tensor]:
        """Yield the images of each batch, uint8 of shape (N, C, H, W)."""
        for index_N, _ in wanted:
            yield self[index_N]

    def to(self, device: torch.device) -> Split:
        """The same images and labels on a device."""
        return Split(images_NCHW=self.images_NCHW.to(device), labels_N=self.labels_N.to(device))


@dataclass(frozen=True, kw_only=True)
class DataShape:
    """What a model has to fit: C, H = W, and the number of classes."""

    in_channels: int
    image_size: int
    num_classes: int

    @property
    def stem(self) -> str:
        """The stem of `revmodels` for images of this size: ``cifar`` or ``imagenet``."""
        return "imagenet" if self.image_size >= SMALLEST_IMAGENET else "cifar"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A data set, ready for training.

    Attributes:
        name: As the study file gives it.
        train, val, test: The three splits; they share no image.
        recipe: How training images are varied: in a batch by `augmentation`, or each as it is decoded.
        mean_C, std_C: Of the training images' pixels, per channel.
        augmentation: What to do to training images, or None.
        has_labels: False for synthetic data, whose labels are noise: no accuracy is recorded.
    """

    name: str
    train: Split | LazyImages
    val: Split | LazyImages
    test: Split | LazyImages
    num_classes: int
    mean_C: Tensor
    std_C: Tensor
    augmentation: Augmentation | None
    has_labels: bool = True
    recipe: str = "crop"

    @property
    def in_memory(self) -> bool:
        """Whether all images are decoded."""
        return isinstance(self.train, Split)

    @property
    def shape(self) -> DataShape:
        """What a model has to fit."""
        channels, size, _ = self.train.image_shape
        return DataShape(in_channels=channels, image_size=size, num_classes=self.num_classes)

    def near(self, device: torch.device) -> ImageData:
        """The same data on a GPU, if that is the device and they are small enough; else as they are."""
        splits = self.train, self.val, self.test
        size = sum(split.images_NCHW.nbytes for split in splits if isinstance(split, Split))
        if device.type != "cuda" or size > RESIDENT_BYTES:
            return self
        train, val, test = (split.to(device) for split in splits)
        return replace(self, train=train, val=val, test=test)

    def normalize(self, images_NCHW: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(x - mean) / std with the training images' statistics, in `dtype`, on the device of the images."""
        shape = (1, -1, 1, 1)
        mean = self.mean_C.to(images_NCHW.device, dtype).view(shape)
        std = self.std_C.to(images_NCHW.device, dtype).view(shape)
        return (images_NCHW.to(dtype) - mean) / std


@lru_cache(maxsize=16)
def data_shape(settings: DataSettings) -> DataShape:
    """Return the shape of a data set, from a single image of it.

    Raises:
        DataError: The data set is missing or has another layout.
    """
    source = sources.open_source(settings)
    _, channels, size, _ = source.images("train", torch.zeros(1, dtype=torch.long)).shape
    return DataShape(in_channels=channels, image_size=size, num_classes=source.num_classes)


@lru_cache(maxsize=16)
def training_images(settings: DataSettings) -> int:
    """Return how many images a trial on this data set trains on; of the images, none is read.

    Raises:
        DataError: The data set is missing, has another layout, or holds fewer images than asked for.
    """
    source = sources.open_source(settings)
    own_val = source.has("val")
    return len(_train_and_val(settings, source.labels("train"), 0, own_val=own_val)[0])


def load_data(settings: DataSettings, *, seed: int = 0) -> ImageData:
    """Read a data set, or return the one already in memory for these settings.

    Args:
        settings: Which images, and how many.
        seed: Of the split, of subsets and of synthetic pixels. Not the trial's seed: trials share their test
            set.

    Returns:
        The images and labels of the three splits.

    Raises:
        DataError: The data set is missing, has another layout, or holds fewer images than asked for.
    """
    return _load(settings, seed)


@lru_cache(maxsize=4)
def _load(settings: DataSettings, seed: int) -> ImageData:
    source = sources.open_source(settings)
    pool_N = source.labels("train")
    own_val = source.has("val")
    train, val = _train_and_val(settings, pool_N, seed, own_val=own_val)
    if own_val:
        val = torch.arange(len(source.labels("val")))
    test_labels_N = source.labels("test")
    test = torch.arange(len(test_labels_N))
    if settings.test_examples is not None:
        test = stratified(test_labels_N, settings.test_examples, _generator(seed, 2), "data.test_examples")
    positions = {
        "train": ("train", train),
        "val": ("val" if own_val else "train", val),
        "test": ("test", test),
    }
    splits, sample = _splits(settings, source, positions, seed)
    std_C, mean_C = _statistics(sample)
    return ImageData(
        name=settings.name,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        num_classes=source.num_classes,
        mean_C=mean_C,
        std_C=std_C.clamp_min(1e-6),
        augmentation=_augmentation(settings, source, sample.shape[-1]),
        has_labels=source.has_labels,
        recipe=settings.recipe,
    )


Positions = dict[str, tuple[str, Tensor]]
"""Of each split, the split of the source that it is read from, and the images there."""


def _splits(
    settings: DataSettings, source: sources.Source, positions: Positions, seed: int
) -> tuple[dict[str, Split | LazyImages], Tensor]:
    """The three splits, in memory or not, and the training images that give mean and deviation."""
    labels = {split: source.labels(held)[index] for split, (held, index) in positions.items()}
    labels["train"] = mislabeled(
        labels["train"], settings.label_noise, source.num_classes, _generator(seed, 3)
    )
    reader_of = getattr(source, "reader", None)
    if reader_of is None and settings.recipe != "crop":
        raise DataError(
            "data.recipe",
            value=settings.recipe,
            rule=f"{settings.name} holds no encoded images, whose sizes differ",
            remedy="use crop",
        )
    held, index = positions["train"]
    first = source.images(held, index[:1])[0]
    size = first.numel() * sum(len(index) for _, index in positions.values())
    if reader_of is None or (settings.recipe == "crop" and size <= DECODED_BYTES):
        resident: dict[str, Split | LazyImages] = {
            split: Split(images_NCHW=source.images(held, index), labels_N=labels[split])
            for split, (held, index) in positions.items()
        }
        train = resident["train"]
        assert isinstance(train, Split)
        return resident, train.images_NCHW
    if settings.image_size is None and first.shape[-1] != first.shape[-2]:
        raise DataError(
            "data.image_size",
            value=tuple(first.shape),
            rule="images that are not kept in memory are resized to a square",
            remedy=f"set data.image_size, such as {min(first.shape[-2:])}",
        )
    readers = {held: reader_of(held) for held, _ in positions.values()}
    several = [readers[held][position] for position in index[:_PROBED].tolist()]
    decoder = Decoder(
        size=settings.image_size or first.shape[-1],
        channels=max(decode(content, None, where).shape[0] for content, where in several),
        recipe=settings.recipe,
    )
    lazy: dict[str, Split | LazyImages] = {
        split: LazyImages(
            readers[held],
            index_N=index,
            labels_N=labels[split],
            decoder=decoder,
            workers=settings.loader_workers,
        )
        for split, (held, index) in positions.items()
    }
    return lazy, _sample(lazy["train"])


def _sample(train: Split | LazyImages) -> Tensor:
    """The first images of the order that a larger subset begins with too."""
    parts = torch.arange(min(SAMPLE, len(train))).split(64)
    return torch.cat(list(train.read((part, None) for part in parts)))


def _train_and_val(
    settings: DataSettings, labels_N: Tensor, seed: int, *, own_val: bool
) -> tuple[Tensor, Tensor]:
    """Disjoint indices of the training pool; the larger the wish, the more of the same order is taken."""
    pool, fraction = len(labels_N), 0.0 if own_val else settings.validation_fraction
    wanted = settings.train_examples
    if wanted is None:
        val_count = round(fraction * pool)
        wanted = pool - val_count
    else:
        val_count = round(wanted * fraction / (1 - fraction))
    if val_count < 1 and not own_val:
        raise DataError(
            "data.validation_fraction",
            value=fraction,
            rule=f"must leave at least one validation image of {pool}",
            remedy=f"at least {1 / pool:.2g}",
        )
    if wanted + val_count > pool:
        raise DataError(
            "data.train_examples",
            value=wanted,
            rule=f"{settings.name} has {pool} training images and {val_count} of them are for validation",
            remedy=f"at most {pool - round(fraction * pool)}",
        )
    order = _interleaved(labels_N, _generator(seed, 1))
    # Validation from the one end, training from the other: both are nested, and they never meet.
    return order.flip(0)[:wanted], order[:val_count]


def mislabeled(labels_N: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return the labels with a share of them wrong.

    Args:
        labels_N: (N,) of int64, each from 0 to `classes` - 1.
        share: Of the labels that are changed, 0 to 1; which ones is drawn.
        classes: How many there are. Each wrong label is as likely as another.
        generator: What is drawn from.

    Returns:
        (N,) of int64; the labels themselves where there is nothing to change.
    """
    count = round(share * len(labels_N))
    if not count or classes < 2:
        return labels_N
    chosen = torch.randperm(len(labels_N), generator=generator)[:count]
    shift = torch.randint(1, classes, (count,), generator=generator)
    noisy_N = labels_N.clone()
    noisy_N[chosen] = (labels_N[chosen] + shift.to(labels_N.device)) % classes
    return noisy_N


def stratified(labels_N: Tensor, count: int, generator: torch.Generator, path: str) -> Tensor:
    """Return indices of `count` images, with the classes in the proportions of `labels_N`.

    Raises:
        DataError: `count` is larger than N.
    """
    if count > len(labels_N):
        raise DataError(
            path, value=count, rule=f"the split has {len(labels_N)} images", remedy="ask for fewer"
        )
    return _interleaved(labels_N, generator)[:count]


def _interleaved(labels_N: Tensor, generator: torch.Generator) -> Tensor:
    """A random order in which every stretch holds the classes in their overall proportions."""
    position = torch.empty(len(labels_N), dtype=torch.float64)
    for label in labels_N.unique():
        members = (labels_N == label).nonzero().squeeze(1)
        shuffled = members[torch.randperm(len(members), generator=generator)]
        # Each class is spread evenly over [0, 1), with an offset of its own to break ties.
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        position[shuffled] = (torch.arange(len(members), dtype=torch.float64) + offset) / len(members)
    return position.argsort(stable=True)


def _generator(seed: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(1000 * seed + purpose)


def _statistics(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """(std, mean) over images and pixels, per channel, in float64, without a float copy of all images."""
    count = images_NCHW[:, 0].numel()
    total = torch.zeros(images_NCHW.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in _chunks(images_NCHW):
        values = part.double()
        total += values.sum((0, 2, 3))
        squares += values.square().sum((0, 2, 3))
    mean = total / count
    return (squares / count - mean.square()).clamp_min(0).sqrt(), mean


def _chunks(images_NCHW: Tensor, pixels: int = 1 << 22) -> Iterator[Tensor]:
    """Parts of so many pixels. Sums of whole numbers are exact in float64, whatever the parts."""
    yield from images_NCHW.split(max(1, pixels // images_NCHW[0].numel()))


def _augmentation(settings: DataSettings, source: sources.Source, size: int) -> Augmentation | None:
    wanted = settings.augment
    if settings.recipe != "crop":
        return None
    if wanted is None:
        wanted = source.augments and size >= SMALLEST_AUGMENTED
    return Augmentation(pad=max(1, size // 8), flip=source.flips) if wanted else None
