"""The store of one round of `benchmarks.chaos`, and what may happen to its files: on a disk, or on an S3
server.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from analysis.store.objects import ObjectStoreError, objects_at

DISK = "96m"
FULL_S = (1.0, 4.0)
ERRORS_S = (1.0, 5.0)
TRIAL_FILE = re.compile(r"study=[^/]+/trials/[0-9a-f]{16}-a\d+\.parquet")
CHECKPOINT = re.compile(r"checkpoints/[0-9a-f]{16}\.pt")
LEASE = re.compile(r"claims/[0-9a-f]{16}\.json")


class Place(Protocol):
    """Where a round's store is."""

    address: str
    kinds: tuple[str, ...]

    def names(self, pattern: re.Pattern[str]) -> list[str]:
        """The store's files of a kind."""

    def read(self, name: str) -> bytes | None:
        """A file's content, if it is still there."""

    def write(self, name: str, content: bytes) -> None:
        """Put a file in the place of what is there."""

    def trouble(self, kind: str, rng: random.Random) -> bool:
        """What can happen to this place alone; False if it cannot now."""

    def close(self) -> None:
        """End all trouble."""


class Folder:
    """A store in a folder: on a small disk of its own where this user may mount one."""

    def __init__(self, scratch: Path) -> None:
        self._disk = scratch / "disk"
        self._disk.mkdir()
        options = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(self._disk)]
        done = None if os.getuid() else subprocess.run(options, check=False, capture_output=True)
        self._mounted = done is not None and done.returncode == 0
        self.address = str(self._disk / "store")
        self.kinds = ("disk full",) if self._mounted else ()

    def names(self, pattern: re.Pattern[str]) -> list[str]:
        """See `Place`."""
        root = Path(self.address)
        names = sorted(path.relative_to(root).as_posix() for path in root.glob("**/*") if path.is_file())
        return [name for name in names if pattern.fullmatch(name)]

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        with contextlib.suppress(OSError):
            return (Path(self.address) / name).read_bytes()
        return None

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        path = Path(self.address) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.0badc0de")
        part.write_bytes(content)
        part.replace(path)

    def trouble(self, kind: str, rng: random.Random) -> bool:
        """Fill the disk for a while."""
        filler = self._disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(2**20))
                file.flush()
        time.sleep(rng.uniform(*FULL_S))
        filler.unlink()
        return True

    def age(self, name: str, seconds: float) -> None:
        """Let a file look older or newer, as after a step of the file server's clock."""
        with contextlib.suppress(OSError):
            then = time.time() - seconds
            os.utime(Path(self.address) / name, (then, then))

    def close(self) -> None:
        """Unmount the disk."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self._disk)], check=False, capture_output=True)


class Bucket:
    """A store on an S3 server on loopback, whose share of failing requests can be raised."""

    kinds = ("requests failing", "server gone")

    def __init__(self, uri: str, errors: Path, name: str) -> None:
        path, _, query = uri.partition("?")
        self.address = f"{path}/{name}?{query}"
        self._errors = errors

    def names(self, pattern: re.Pattern[str]) -> list[str]:
        """See `Place`."""
        listed = objects_at(self.address).list("") if self._answers() else []
        return sorted(stored.name for stored in listed if pattern.fullmatch(stored.name))

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        found = objects_at(self.address).read(name)
        return None if found is None else found.content

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        objects_at(self.address).put(name, content)

    def trouble(self, kind: str, rng: random.Random) -> bool:
        """Let a third of the requests fail for a while, or all of them."""
        self._errors.write_text("1.0" if kind == "server gone" else "0.33")
        time.sleep(rng.uniform(*ERRORS_S))
        self._errors.write_text("0.0")
        return True

    def close(self) -> None:
        """Let all requests succeed again."""
        self._errors.write_text("0.0")

    def _answers(self) -> bool:
        with contextlib.suppress(ObjectStoreError):
            objects_at(self.address).read("none")
            return True
        return False


def damage(place: Place, kind: str, rng: random.Random) -> bool:
    """Do to a random file of the store what the kind says; False if there is none of the sort."""
    action, what = kind.split(" ", 1)
    pattern = {"row": TRIAL_FILE, "checkpoint": CHECKPOINT, "lease": LEASE}[what]
    names = place.names(pattern)
    if not names:
        return False
    name = rng.choice(names)
    for path in curves_of(name) if what == "row" else [name]:
        content = place.read(path)
        if content is None:
            continue
        if action == "torn":
            place.write(path, content[: rng.randrange(1, max(2, len(content)))])
        elif action == "truncated":
            place.write(path, b"")
        elif action == "garbled":
            place.write(path, rng.randbytes(rng.randrange(1, 400)))
        elif action == "duplicated":
            folder, _, last = path.rpartition("/")
            place.write(f"{folder}/copy-{rng.randrange(10**6)}-{last}", content)
    return True


def curves_of(row: str) -> Iterator[str]:
    """The files of a trial's attempt, its row last."""
    for table in ("epochs", "blocks", "trials"):
        yield row.replace("/trials/", f"/{table}/")
