"""Where the files of a data set are, and the identity of what they hold. It imports no torch."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from study.data.remote import is_remote, local_copy
from study.data.text_fingerprint import text_fingerprint
from study.errors import DataError, nearest
from study.settings.data import DataSettings, is_text

CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
"""Where torchvision unpacks them."""

SYNTHETIC_SIZES = "3x32x32x10"
"""C, H, W and classes of plain ``synthetic``."""

_SPLIT_NAMES = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


@lru_cache(maxsize=16)
def fingerprint(settings: DataSettings) -> str:
    """A data set's identity: its name, or for files a hash of their outline, whatever the path.

    Returns:
        The identity, which is part of a trial's.

    Raises:
        DataError: The folder is missing or of another layout.
    """
    kind, _, rest = settings.name.partition(":")
    if is_text(settings.name):
        return text_fingerprint(settings.name, tokenizer=settings.tokenizer, root=settings.root)
    if kind == "synthetic":
        return f"synthetic:{rest or SYNTHETIC_SIZES}"
    if kind in ("parquet", "folder"):
        return f"{kind}:{files_digest(kind, folder_of(settings), settings.name)}"
    if kind == "hf":
        from study.data.hub import hub_fingerprint

        return f"hf:{hub_fingerprint(settings)}"
    if kind in CIFAR_FOLDERS and (folder := cifar_parquet(settings)) is not None:
        # Some copies are compressed again: their pixels are not those of the original.
        return f"parquet:{files_digest('parquet', folder, settings.name)}"
    return settings.name


def files_digest(kind: str, folder: Path, name: str) -> str:
    """A hash of the outline of a data set's files, the same wherever they lie.

    Parquet shards count by name, size and footer (which holds row counts and statistics); image folders by
    the relative names and sizes of their files.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    if kind == "parquet":
        for split, files in sorted(parquet_files(folder, name).items()):
            for file in files:
                digest.update(f"{split}/{file.name}/{file.stat().st_size}/".encode() + _footer(file))
    else:
        for split, files in sorted(folder_files(folder, name)[0].items()):
            for file in files:
                digest.update(f"{split}/{file.relative_to(folder)}/{file.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def parquet_files(folder: Path, name: str) -> dict[str, list[Path]]:
    """The shards of each split, in the folder itself or in its ``data`` folder.

    Returns:
        Paths by split, sorted.

    Raises:
        DataError: There are no shards of the training or of the test split.
    """
    for place in (folder, folder / "data"):
        files = {
            split: sorted(f for stem in stems for f in place.glob(f"{stem}*.parquet"))
            for split, stems in _SPLIT_NAMES.items()
        }
        found = {split: shards for split, shards in files.items() if shards}
        if "train" in found and "test" in found:
            return found
    held = sorted(f.name for f in folder.iterdir())[:6]
    raise DataError(
        "data.name",
        value=name,
        rule="must hold train-*.parquet and test-*.parquet",
        remedy=f"the folder holds {', '.join(held) or 'nothing'}",
    )


def folder_files(folder: Path, name: str) -> tuple[dict[str, list[Path]], dict[str, list[int]], list[str]]:
    """Files and labels of each split, and the names of the classes.

    Returns:
        Files by split, their labels in the same order, and the names of the classes.

    Raises:
        DataError: A split or its images are missing, or a test class is no training class.
    """
    places = {
        split: next((folder / stem for stem in stems if (folder / stem).is_dir()), None)
        for split, stems in _SPLIT_NAMES.items()
    }
    if places["test"] is None:  # ImageNet keeps its labeled held-out images in val/
        places["test"], places["val"] = places["val"], None
    rule = "must hold train/ and test/ (or val/), with one folder of images for each class"
    if places["train"] is None or places["test"] is None:
        held = sorted(f.name for f in folder.iterdir())[:6]
        raise DataError("data.name", value=name, rule=rule, remedy=f"it holds {', '.join(held) or 'nothing'}")
    classes = sorted(d.name for d in places["train"].iterdir() if d.is_dir())
    files: dict[str, list[Path]] = {}
    labels: dict[str, list[int]] = {}
    for split, place in places.items():
        if place is None:
            continue
        unknown = sorted({d.name for d in place.iterdir() if d.is_dir()} - set(classes))
        if unknown:
            remedy = "give the class training images, or remove it"
            raise DataError(
                "data.name",
                value=f"{place.name}/{unknown[0]}",
                rule="must be a training class too",
                remedy=remedy,
            )
        found = [(f, label) for label, c in enumerate(classes) for f in _images_in(place / c)]
        if not found:
            raise DataError("data.name", value=name, rule=rule, remedy=f"{place.name}/ holds no images")
        files[split] = [f for f, _ in found]
        labels[split] = [label for _, label in found]
    return files, labels, classes


def _images_in(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in _IMAGE_SUFFIXES)


def _footer(file: Path) -> bytes:
    """The metadata at the end of a Parquet file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length + 12 > size:
            raise torn(file)
        stream.seek(size - 8 - length)
        return stream.read()


def torn(file: Path) -> DataError:
    """The error of a Parquet file that was not written to its end."""
    rule, remedy = "must be a whole Parquet file", "fetch the file again"
    return DataError("data.name", value=file.name, rule=rule, remedy=remedy)


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


def folder_of(settings: DataSettings) -> Path:
    """The folder after the colon; a relative one is below data.root, or else the working directory."""
    rest = settings.name.partition(":")[2]
    if is_remote(rest):
        return local_copy(rest, settings.root)
    folder = Path(settings.root or ".") / Path(settings.name.partition(":")[2]).expanduser()
    if not folder.is_dir():
        raise DataError(
            "data.name",
            value=settings.name,
            rule="must name an existing folder",
            remedy=_nearest_folder(folder),
        )
    return folder


def imagenet_folder(settings: DataSettings) -> Path:
    """The folder with ImageNet's train/ and val/.

    Returns:
        The folder.

    Raises:
        DataError: There is none.
    """
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


def _nearest_folder(folder: Path) -> str:
    parent = folder.parent
    names = sorted(p.name for p in parent.iterdir() if p.is_dir())[:20] if parent.is_dir() else []
    return nearest(folder.name, names) if names else f"there is no such folder in {folder.parent}"
