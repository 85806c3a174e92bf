"""Where images come from: one class for each kind of data set, all with the same three questions."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from study.data.fingerprint import SYNTHETIC_SIZES, cifar_parquet, data_root, folder_of, imagenet_folder
from study.data.hub import HubImages
from study.data.images import FolderImages, ParquetImages
from study.errors import DataError
from study.settings.data import DataSettings


class Source(Protocol):
    """A data set that can be read in parts. Splits are ``train``, ``test`` and sometimes ``val``."""

    num_classes: int
    augments: bool
    flips: bool
    has_labels: bool

    def has(self, split: str) -> bool:
        """Whether the split exists."""
        ...

    def labels(self, split: str) -> Tensor:
        """All labels of a split: int64, shape (N,)."""
        ...

    def images(self, split: str, index: Tensor) -> Tensor:
        """The images at `index`, in its order: uint8, shape (len(index), C, H, W)."""
        ...


def open_source(settings: DataSettings) -> Source:
    """Return the source of a data set's name.

    Raises:
        DataError: The data set is missing or of another layout.
    """
    kind, _, rest = settings.name.partition(":")
    if kind == "digits":
        return Digits()
    if kind == "synthetic":
        return Synthetic(settings, rest)
    if kind == "parquet":
        return ParquetImages(folder_of(settings), settings)
    if kind == "hf":
        return HubImages(settings)
    if kind == "folder":
        return FolderImages(folder_of(settings), settings)
    if kind in ("cifar10", "cifar100"):
        folder = cifar_parquet(settings)
        return Cifar(settings) if folder is None else ParquetImages(folder, settings)
    if kind == "imagenet":
        return FolderImages(imagenet_folder(settings), settings, default_size=224)
    raise DataError(
        "data.name", value=settings.name, rule="must be a known data set", remedy="see `datasets`"
    )


class Digits:
    """scikit-learn's 1,797 images of handwritten digits, 8 x 8 pixels of 0 to 16; a fifth are for testing."""

    num_classes, augments, flips, has_labels = 10, False, False, True

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        # Every fifth image of each class is a test image.
        rank = torch.empty_like(labels)
        for label in range(10):
            members = order[labels[order] == label]
            rank[members] = torch.arange(len(members))
        test = rank % 5 == 0
        self._splits = {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}

    def has(self, split: str) -> bool:
        """Train and test alone."""
        return split in self._splits

    def labels(self, split: str) -> Tensor:
        """Labels of shape (N,)."""
        return self._splits[split][1]

    def images(self, split: str, index: Tensor) -> Tensor:
        """Images of shape (len(index), 1, 8, 8)."""
        return self._splits[split][0][index]


class Synthetic:
    """Noise, for memory and speed: ``synthetic``, or ``synthetic:3x32x32x10`` (C, H, W, classes)."""

    augments, flips, has_labels = False, False, False

    def __init__(self, settings: DataSettings, sizes: str) -> None:
        self._shape = tuple(int(size) for size in (sizes or SYNTHETIC_SIZES).split("x"))
        self.num_classes = self._shape[3]
        train = settings.train_examples or 512
        fraction = settings.validation_fraction
        pool = train + max(1, round(train * fraction / (1 - fraction)))
        self._counts = {"train": pool, "test": settings.test_examples or 128}

    def has(self, split: str) -> bool:
        """Train and test alone."""
        return split in self._counts

    def labels(self, split: str) -> Tensor:
        """Labels in turn, shape (N,)."""
        return torch.arange(self._counts[split]) % self.num_classes

    def images(self, split: str, index: Tensor) -> Tensor:
        """Uniform pixels of shape (len(index), C, H, W)."""
        generator = torch.Generator().manual_seed({"train": 1, "test": 2}[split])
        return torch.randint(0, 256, (len(index), *self._shape[:3]), dtype=torch.uint8, generator=generator)


class Cifar:
    """CIFAR-10 and CIFAR-100 as torchvision keeps them."""

    augments, flips, has_labels = True, True, True

    def __init__(self, settings: DataSettings) -> None:
        from torchvision import datasets

        kind = datasets.CIFAR10 if settings.name == "cifar10" else datasets.CIFAR100
        root = data_root(settings)
        try:
            parts = {
                s: kind(str(root), train=s == "train", download=settings.download) for s in ("train", "test")
            }
        except (RuntimeError, OSError) as error:
            raise DataError(
                "data.name",
                value=settings.name,
                rule=f"its files must be under {root} ({type(error).__name__})",
                remedy="set data.download: true to fetch them, or data.root or REVSTUDY_DATA to their folder "
                f"(or, as Parquet, {root / settings.name})",
            ) from error
        self._parts = {s: (torch.from_numpy(p.data).permute(0, 3, 1, 2), p.targets) for s, p in parts.items()}
        self.num_classes = len(parts["train"].classes)

    def has(self, split: str) -> bool:
        """Train and test alone."""
        return split in self._parts

    def labels(self, split: str) -> Tensor:
        """Labels of shape (N,)."""
        return torch.tensor(self._parts[split][1])

    def images(self, split: str, index: Tensor) -> Tensor:
        """Images of shape (len(index), 3, 32, 32)."""
        return self._parts[split][0][index].contiguous()
