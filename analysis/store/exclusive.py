"""One process at a time: a lock on a folder, a lease object in object storage.

The lock of a folder ends with its process, however that ends. A lease object names its owner, who refreshes
it every few seconds; one that has not been refreshed for a minute, by the clock of the storage, may be taken
over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from analysis.store.objects import Objects, ObjectStoreError, objects_at

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

HEARTBEAT_S = 5.0
STALE_S = 60.0


class TakenError(Exception):
    """Another process has it; the message says which."""


@contextlib.contextmanager
def exclusive(store: str | Path, name: str) -> Iterator[Callable[[], None]]:
    """Let one process at a time into the block.

    Args:
        store: A folder, or a URI of object storage.
        name: The name of the lock's file or object below the store, such as ``study=s/.compact.lock``.

    Yields:
        A function to call before each step that must not be taken twice: it raises `TakenError` if the lease
        was lost meanwhile, as after a machine that slept.

    Raises:
        TakenError: Another process has it.
        OSError: The file or object cannot be written.
    """
    if "://" in str(store) and not str(store).startswith("file://"):
        objects = objects_at(str(store))
        objects.check()
        lease = _ObjectLease(objects, name)
        try:
            yield lease.check
        finally:
            lease.release()
        return
    with Path(str(store).removeprefix("file://"), name).open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TakenError("another process of this or another machine has the lock") from None
        yield lambda: None


class _ObjectLease:
    """A lease object that is ours until it is released; a thread refreshes it."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name = objects, name
        self._owner = uuid.uuid4().hex
        self._beats = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._lost = False
        self._version = self._acquire()
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def check(self) -> None:
        """Make sure that the lease is still ours, by refreshing it.

        Raises:
            TakenError: It is not.
            ObjectStoreError: The storage does not answer.
        """
        with self._lock:
            self._refresh()

    def release(self) -> None:
        """Leave an object that says that nobody has the lease."""
        self._ended.set()
        with self._lock, contextlib.suppress(ObjectStoreError):
            if not self._lost:
                self._objects.write(self._name, self._content(released=True), expected=self._version)

    def _acquire(self) -> str:
        found = self._objects.read(self._name)
        if found is not None:
            held = _read(found.content)
            fresh = (self._objects.now(Path(self._name).parent.as_posix()) - found.modified).total_seconds()
            if not held.get("released") and fresh <= STALE_S:
                raise TakenError(f"process {held.get('pid', '?')} on {held.get('host', '?')} has the lease")
        version = self._objects.write(
            self._name, self._content(released=False), expected=found.version if found is not None else None
        )
        if version is None:
            raise TakenError("another process took the lease this moment")
        return version

    def _content(self, *, released: bool) -> bytes:
        self._beats += 1
        content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "beats": self._beats,
        }
        return json.dumps({**content, "released": released}).encode()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with self._lock, contextlib.suppress(ObjectStoreError, TakenError):
                if not self._ended.is_set():
                    self._refresh()

    def _refresh(self) -> None:
        if not self._lost:
            version = self._objects.write(self._name, self._content(released=False), expected=self._version)
            self._lost, self._version = version is None, version or self._version
        if self._lost:
            raise TakenError("another process took the lease over")


def _read(content: bytes) -> dict[str, object]:
    try:
        held = json.loads(content)
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}
