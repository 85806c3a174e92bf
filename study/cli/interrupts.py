"""Ctrl-C ends a command within a second, whatever it is doing; a time limit does the same.

Python hands a signal to the main thread between two of its own steps. A query inside DuckDB is one step, and
may take minutes. So a Ctrl-C does two things: it raises KeyboardInterrupt in the main thread, as ever, which
removes temporary files and gives back locks; and it wakes a thread that ends the process shortly after,
unless it has ended by then. Nothing is lost by that: whatever a command writes appears whole or not at all,
as after a power failure.

A verb that ends in its own time, since it stops others or says what is left, runs in `own_time`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
TIMED_OUT = 124
"""Exit code of a command that its time limit ended; `timeout` of coreutils has the same."""
GRACE_S = 0.4
"""Seconds that an interrupted command has to end in order."""


class _Guard:
    """What became of the process's Ctrl-C."""

    installed = False
    interrupted = False


def guard() -> None:
    """Take charge of Ctrl-C in this process; called once, first of all.

    A process that was started with the signal ignored, as a shell's background job is, goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="interrupts", daemon=True).start()
    signal.signal(signal.SIGINT, _interrupt)
    _Guard.installed = True


def interrupted() -> bool:
    """Whether a Ctrl-C came that ends the command."""
    return _Guard.interrupted


@contextlib.contextmanager
def own_time() -> Iterator[None]:
    """A block that Ctrl-C ends by KeyboardInterrupt alone, however long that takes."""
    if not _Guard.installed:
        yield
        return
    # The thread is not told, as it might look only after the block has ended.
    told = signal.set_wakeup_fd(-1)
    # The handler that asyncio and Ray know how to replace.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _interrupt)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Ends the process with `TIMED_OUT` where the block takes longer, whatever it is doing.

    Args:
        seconds: The most that it may take; None for no limit.
    """
    if seconds is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        if not done.wait(seconds):
            text = f"revstudy: the query took longer than the {seconds:g} s of --timeout and was ended\n"
            os.write(2, text.encode())
            os._exit(TIMED_OUT)

    threading.Thread(target=watch, name="time limit", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def leave(code: int) -> NoReturn:
    """End now with this exit code, without waiting for what other threads are doing.

    Raises:
        SystemExit: The process is shared with others, such as tests; threads are waited for as ever.
    """
    if _Guard.installed:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Guard.interrupted = True
    # An exception that is raised where none can be caught, such as in a destructor, would be printed.
    sys.unraisablehook = lambda unraisable: None
    threading.excepthook = lambda failed: None
    raise KeyboardInterrupt


def _watch(reader: int) -> None:
    while True:
        if signal.SIGINT in os.read(reader, 64):
            _Guard.interrupted = True
            time.sleep(GRACE_S)
            os._exit(INTERRUPTED)
