"""Leases as files of a folder, on this machine or on a mount that several machines share.

A lease appears under its name with its content, through a hard link, which fails where there is one already.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import uuid
from datetime import UTC, datetime
from pathlib import Path

from study.store.lease import FOLDER, FoundLease, Lease, parse_lease


class LeaseFiles:
    """The leases of a store in a folder."""

    def __init__(self, store: Path) -> None:
        self._folder = store / FOLDER

    def create(self, lease: Lease) -> str | None:
        """See `study.store.lease.LeaseStorage`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._written(lease)
        try:
            os.link(temporary, self._path(lease.trial_id))
        except FileExistsError:
            return None
        finally:
            temporary.unlink(missing_ok=True)
        return lease.owner

    def read(self, trial_id: str) -> FoundLease | None:
        """See `study.store.lease.LeaseStorage`."""
        path = self._path(trial_id)
        try:
            lease, token = _content(path)
            return FoundLease(
                trial_id=trial_id, lease=lease, age_s=self._age_s(path), token=token, where=str(path)
            )
        except FileNotFoundError:
            return None

    def replace(self, found: FoundLease, lease: Lease) -> str | None:
        """See `study.store.lease.LeaseStorage`."""
        self.remove(found)
        return self.create(lease)

    def refresh(self, lease: Lease, token: str) -> str | None:
        """See `study.store.lease.LeaseStorage`. A file that was damaged is written anew."""
        try:
            found, _ = _content(self._path(lease.trial_id))
        except FileNotFoundError:
            return None
        if found is not None and found.owner != lease.owner:
            return None
        temporary = self._written(lease)
        try:
            temporary.replace(self._path(lease.trial_id))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return token

    def release(self, lease: Lease, token: str, *, done: bool) -> None:
        """See `study.store.lease.LeaseStorage`."""
        with contextlib.suppress(FileNotFoundError):
            found, _ = _content(self._path(lease.trial_id))
            if found is not None and found.owner == lease.owner:
                self._path(lease.trial_id).unlink()

    def remove(self, found: FoundLease) -> None:
        """See `study.store.lease.LeaseStorage`."""
        path, aside = self._path(found.trial_id), self._folder / f".taken-{uuid.uuid4().hex}"
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        if _content(aside)[1] != found.token:  # meanwhile, a new one has come in its place
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        if aside.is_dir() and not aside.is_symlink():
            with contextlib.suppress(OSError):  # not ours, and not empty: it stays aside
                aside.rmdir()
        else:
            aside.unlink()

    def all(self) -> list[FoundLease]:
        """See `study.store.lease.LeaseStorage`."""
        if not self._folder.is_dir():
            return []
        found = (self.read(path.stem) for path in sorted(self._folder.glob("[!.]*.json")))
        return [lease for lease in found if lease is not None]

    def forget(self, done: set[str]) -> None:
        """See `study.store.lease.LeaseStorage`. A lease that is released leaves nothing here."""

    def _path(self, trial_id: str) -> Path:
        return self._folder / f"{trial_id}.json"

    def _written(self, lease: Lease) -> Path:
        temporary = self._folder / f".{lease.trial_id}.{uuid.uuid4().hex[:8]}"
        try:
            temporary.write_bytes(lease.to_bytes())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _age_s(self, path: Path) -> float:
        """Seconds since a file was written, both times by the clock of the file system."""
        written = path.lstat().st_mtime
        probe = self._folder / f".now-{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"now")
            return probe.stat().st_mtime - written
        except OSError:
            return datetime.now(UTC).timestamp() - written  # read-only or full: this clock has to do
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)


def _content(path: Path) -> tuple[Lease | None, str]:
    """Return the lease in a file and the file's token; no pipe, device, link or folder is opened.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return None, "not a file"
    content = path.read_bytes()
    lease = parse_lease(content)
    return lease, lease.owner if lease is not None else hashlib.sha256(content).hexdigest()
