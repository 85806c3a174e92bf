"""Where images come from: one class for each kind of data set, all with the same three questions."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from study.data.images import FolderImages, ParquetImages, files_digest
from study.errors import DataError, nearest
from study.settings import DataSettings

SYNTHETIC_SIZES = "3x32x32x10"
"""C, H, W and classes of plain ``synthetic``."""
CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
"""Where torchvision unpacks them."""


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
    """The source of a data set's name.

    Raises:
        DataError: The data set is missing or of another layout.
    """
    kind, _, rest = settings.name.partition(":")
    if kind == "digits":
        return Digits()
    if kind == "synthetic":
        return Synthetic(settings, rest)
    if kind == "parquet":
        return ParquetImages(_folder(settings), settings)
    if kind == "folder":
        return FolderImages(_folder(settings), settings)
    if kind in ("cifar10", "cifar100"):
        folder = cifar_parquet(settings)
        return Cifar(settings) if folder is None else ParquetImages(folder, settings)
    if kind == "imagenet":
        return FolderImages(_imagenet_folder(settings), settings, default_size=224)
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


def cifar_parquet(settings: DataSettings) -> Path | None:
    """Hugging Face's Parquet copy of CIFAR, in the data root under its name; None beside torchvision's."""
    root = data_root(settings)
    if (root / CIFAR_FOLDERS[settings.name]).is_dir():
        return None
    folder = root / settings.name
    return folder if any(any(f.glob("train*.parquet")) for f in (folder, folder / "data")) else None


def data_root(settings: DataSettings) -> Path:
    """Where torchvision's data sets are: data.root, or REVSTUDY_DATA, or ``data``."""
    return Path(settings.root or os.environ.get("REVSTUDY_DATA") or "data").expanduser()


def _imagenet_folder(settings: DataSettings) -> Path:
    root = data_root(settings)
    for folder in (root / "imagenet", root):
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder
    raise DataError(
        "data.name",
        value=settings.name,
        rule=f"train/ and val/ must be under {root} or {root / 'imagenet'}, one folder for each class",
        remedy="ImageNet needs an account at image-net.org; unpack it as torchvision.datasets.ImageNet does "
        "and set data.root (or REVSTUDY_DATA)",
    )


def _folder(settings: DataSettings) -> Path:
    """The folder after the colon; a relative one is below data.root, or else the working directory."""
    folder = Path(settings.root or ".") / Path(settings.name.partition(":")[2]).expanduser()
    if not folder.is_dir():
        raise DataError(
            "data.name",
            value=settings.name,
            rule="must name an existing folder",
            remedy=_nearest_folder(folder),
        )
    return folder


def _nearest_folder(folder: Path) -> str:
    parent = folder.parent
    names = sorted(p.name for p in parent.iterdir() if p.is_dir())[:20] if parent.is_dir() else []
    return nearest(folder.name, names) if names else f"there is no such folder in {folder.parent}"


@lru_cache(maxsize=16)
def fingerprint(settings: DataSettings) -> str:
    """A data set's identity: its name, or for files a hash of their outline, whatever the path.

    Raises:
        DataError: The folder is missing or of another layout.
    """
    kind, _, rest = settings.name.partition(":")
    if kind == "synthetic":
        return f"synthetic:{rest or SYNTHETIC_SIZES}"
    if kind in ("parquet", "folder"):
        return f"{kind}:{files_digest(kind, _folder(settings), settings.name)}"
    if kind in CIFAR_FOLDERS and (folder := cifar_parquet(settings)) is not None:
        # Some copies are compressed again: their pixels are not those of the original.
        return f"parquet:{files_digest('parquet', folder, settings.name)}"
    return settings.name
