"""Claims: who trains which trial, so that several runs share a store and no trial is trained twice.

``<store>/claims/<trial>.json`` is made, only if it is not there, by the process that is about to train the
trial. That process refreshes it every `HEARTBEAT_S` and removes it at the end. A claim counts no more if its
process is gone from this machine, or has not refreshed it for `STALE_S`; whoever wants the trial then takes
the claim over.

Ages are differences of two times that the file system gave, that of the claim and that of a file written now.
Clocks of machines that disagree do no harm.

Object storage has no way to make a file only if it is missing through `pyarrow.fs`: there, nothing is
claimed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from study.store.files import local_folder, store_errors

HEARTBEAT_S = 5.0
STALE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim as its file holds it. Times are ISO 8601 in UTC, by the clock of `host`, for people to read.

    `epoch` of `epochs` are done. `process` tells a process from a later one of the same number; `run` is the
    run that handed the trial out, `owner` this claim alone.
    """

    trial_id: str
    study: str
    host: str
    pid: int
    started_at: str
    heartbeat_at: str
    epoch: int
    epochs: int
    process: str = ""
    run: str = ""
    owner: str = ""


class Hold:
    """A trial that is ours while this lasts; its thread refreshes the claim."""

    def __init__(self, folder: Path | None, claim: Claim) -> None:
        self._folder = folder
        self._claim = claim
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.lost = False
        if folder is not None:
            threading.Thread(target=self._beat, name="claim", daemon=True).start()

    def progress(self, epoch: int) -> None:
        """Say how many epochs are done; the file follows with the next heartbeat."""
        self._claim = replace(self._claim, epoch=epoch)

    def release(self) -> None:
        """Remove the claim, unless another took it over."""
        self._ended.set()
        with self._lock:
            if self._folder is not None and self._is_ours():
                _path(self._folder, self._claim.trial_id).unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with self._lock:
                if not self._ended.is_set():
                    self._refresh()

    def _refresh(self) -> None:
        if self._folder is None:
            return
        if not self._is_ours():
            self.lost = True
            self._ended.set()
            return
        self._claim = replace(self._claim, heartbeat_at=_now())
        with contextlib.suppress(OSError):  # a full disk for a moment; the row tells of a lasting one
            temporary = _written(self._folder, self._claim)
            temporary.replace(_path(self._folder, self._claim.trial_id))

    def _is_ours(self) -> bool:
        """Whether the file holds this claim; a file that cannot be read may be ours."""
        assert self._folder is not None
        try:
            found = _read(_path(self._folder, self._claim.trial_id))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return found is not None and found.owner == self._claim.owner


def acquire(
    store: str | Path, trial_id: str, *, study: str = "", epochs: int = 0, run: str = ""
) -> Hold | Claim:
    """Claim a trial: the `Hold` on it, or the claim of whoever trains it.

    A claim that was left by a process of the same `run` is taken over: a run hands a trial out again only
    once it has lost the process that had it.

    Raises:
        StoreError: The store cannot be written.
    """
    claim = Claim(
        trial_id=trial_id,
        study=study,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=_now(),
        heartbeat_at=_now(),
        epoch=0,
        epochs=epochs,
        process=_process(os.getpid()),
        run=run,
        owner=uuid.uuid4().hex,
    )
    store_folder = local_folder(store)
    if store_folder is None:
        return Hold(None, claim)
    folder = store_folder / "claims"
    path = _path(folder, trial_id)
    with store_errors(store, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        while not _create(folder, claim):
            try:
                found = _read(path)
                if not (found and found.run == run and run) and not _is_dead(folder, path, found):
                    return found or claim
            except FileNotFoundError:
                continue  # released this moment
            _take_away(folder, path, found)
    return Hold(folder, claim)


def read_claims(store: str | Path) -> dict[str, Claim]:
    """The claims of a store that count, by trial id.

    Raises:
        StoreError: The store cannot be read.
    """
    store_folder = local_folder(store)
    if store_folder is None or not (store_folder / "claims").is_dir():
        return {}
    folder, claims = store_folder / "claims", {}
    with store_errors(store, "read"):
        for path in sorted(folder.glob("[!.]*.json")):
            with contextlib.suppress(FileNotFoundError):
                claim = _read(path)
                if claim is not None and not _is_dead(folder, path, claim):
                    claims[claim.trial_id] = claim
    return claims


def remove_dead(store: str | Path) -> None:
    """Remove the claims that count no more.

    Raises:
        StoreError: The store cannot be written.
    """
    store_folder = local_folder(store)
    if store_folder is None:
        return
    folder = store_folder / "claims"
    with store_errors(store, "written"):
        for path in sorted(folder.glob("[!.]*.json")):
            with contextlib.suppress(FileNotFoundError):
                claim = _read(path)
                if _is_dead(folder, path, claim):
                    _take_away(folder, path, claim)


def _is_dead(folder: Path, path: Path, claim: Claim | None) -> bool:
    """Whether a claim counts no more. A torn or foreign one has only its age to tell."""
    if claim is not None and claim.process:
        ours = _process(os.getpid())
        here = claim.process.rpartition("/")[0] == ours.rpartition("/")[0]
        if here and claim.process != _process(claim.pid):
            return True
    return _age_s(folder, path) > STALE_S


def _age_s(folder: Path, path: Path) -> float:
    """Seconds since a file was last written, both times by the clock of the file system."""
    written = path.stat().st_mtime
    probe = folder / f".now-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"now")
        return probe.stat().st_mtime - written
    except OSError:
        return datetime.now(UTC).timestamp() - written  # read-only or full: this clock has to do
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _create(folder: Path, claim: Claim) -> bool:
    """Make the claim's file unless there is one; it appears with its content."""
    temporary = _written(folder, claim)
    try:
        os.link(temporary, _path(folder, claim.trial_id))
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _take_away(folder: Path, path: Path, dead: Claim | None) -> None:
    """Remove the file of a dead claim, and no other: meanwhile, a new one may have come in its place."""
    aside = folder / f".taken-{uuid.uuid4().hex}"
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = _read(aside)
    if (found and found.owner) != (dead and dead.owner):
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _written(folder: Path, claim: Claim) -> Path:
    temporary = folder / f".{claim.trial_id}.{uuid.uuid4().hex[:8]}"
    try:
        temporary.write_text(json.dumps(asdict(claim)) + "\n")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _read(path: Path) -> Claim | None:
    """The claim in a file; None if it is torn or foreign.

    Raises:
        FileNotFoundError: There is no such file.
    """
    try:
        content = json.loads(path.read_bytes())
        return Claim(**{name: content[name] for name in Claim.__dataclass_fields__ if name in content})
    except (ValueError, TypeError):
        return None


def _path(folder: Path, trial_id: str) -> Path:
    return folder / f"{trial_id}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _process(pid: int) -> str:
    """``machine/process``: what names a process beyond its number; empty where the system does not tell.

    The machine is one boot of one kernel and one name space of process numbers. A process that is gone has no
    start; a zombie has ended, too.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return ""
    start = "gone"
    with contextlib.suppress(OSError, IndexError):
        # After the name in parentheses: the state is field 3 of the file, the start in clock ticks field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start = "gone" if fields[0] in "ZX" else fields[19]
    return f"{boot}:{space}/{pid}@{start}"
