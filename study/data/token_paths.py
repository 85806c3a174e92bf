"""Where the files of ``tokens:<path>`` are, and the split of each. It imports neither torch nor NumPy."""

from __future__ import annotations

from pathlib import Path

from study.data.text_files import SPLITS, TextFile, digest_of, named_split, path_of
from study.errors import DataError

META = "meta.json"
"""The file beside them that says what they are; see `study.data.token_files`."""

_SUFFIXES = (".bin", ".npy")


def token_paths(name: str, root: str | None) -> list[TextFile]:
    """The files of a name, each with its split, or one that is to be cut.

    Returns:
        One file, or one for each of the three splits.

    Raises:
        DataError: There is no such path, or a split is missing.
    """
    place = path_of(name, root)
    if place.is_file():
        return [TextFile(path=place, key=place.name)]
    found: dict[str, Path] = {}
    for file in sorted(place.iterdir()):
        split = named_split(file.name) if file.suffix in _SUFFIXES else None
        if split is None:
            continue
        if split in found:
            raise DataError(
                "data.name",
                value=[found[split].name, file.name],
                rule=f"must hold one file of the {split} split",
                remedy="join the shards, or name a folder for each data set",
            )
        found[split] = file
    missing = [split for split in SPLITS if split not in found]
    if missing:
        held = ", ".join(sorted(f.name for f in place.iterdir())[:6]) or "nothing"
        raise DataError(
            "data.name",
            value=name,
            rule=f"must hold train, val and test as .bin or .npy; {' and '.join(missing)} is missing",
            remedy=f"the folder holds {held}; name a single file to have it cut into splits",
        )
    return [TextFile(path=found[split], key=found[split].name, splits=(split,)) for split in SPLITS]


def tokens_digest(name: str, root: str | None) -> str:
    """A hash of the files and of what ``meta.json`` says: 16 hexadecimal digits."""
    files = token_paths(name, root)
    meta = files[0].path.parent / META
    if meta.is_file():
        files = [*files, TextFile(path=meta, key=meta.name)]
    return digest_of(files)
