"""A `revstudy` command in a session of its own, its processes by kind, and what may be done to them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

VICTIMS = ("driver", "actor", "worker", "raylet")
SIGNALS = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM, "stopped": signal.SIGSTOP}
STILL_S = (1.0, 6.0)
"""How long a stopped process stands still."""

CLOCK = """
import os, time

_file, _real, _seen = os.environ.get("CHAOS_CLOCK"), time.time, [0.0, 0.0]

def _now():
    if time.monotonic() - _seen[0] > 0.2:
        _seen[0] = time.monotonic()
        try:
            with open(_file) as file:
                _seen[1] = float(file.read() or 0)
        except (OSError, ValueError):
            pass
    return _real() + _seen[1]

if _file:
    time.time = _now
"""
"""Python reads this file as it starts: the clock of every Python process of a run can be stepped."""


class Run:
    """One `revstudy run`, or another verb, on a store.

    Args:
        arguments: The verb and what follows it.
        scratch: A folder for the log and the clock's offset, shared by the runs of one store.
        name: The log's name.
    """

    def __init__(self, arguments: list[str], scratch: Path, name: str) -> None:
        self.name = name
        self.disturbed = False
        self._log = scratch / f"{name}.log"
        self._stopped: dict[int, float] = {}
        site = scratch / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(CLOCK)
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "study.cli", *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "CHAOS_CLOCK": str(scratch / "clock")},
            )

    def ends_within(self, seconds: float) -> bool:
        """Whether the run has ended by itself after `seconds`. Stopped processes go on when it is time."""
        ends_at = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < ends_at:
            self._resume(time.monotonic())
            time.sleep(0.05)
        return self._process.poll() is not None

    def signal(self, victim: str, how: str, rng: random.Random) -> bool:
        """Send a signal to one process of a kind; False if there is none at this moment."""
        found = [pid for pid, name in self.family() if kind_of(name) == victim]
        if victim == "driver":
            found = [self._process.pid] if self._process.poll() is None else []
        for pid in rng.sample(found, min(1, len(found))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGNALS[how])
                self.disturbed |= victim == "driver" and how != "stopped"
                if how == "stopped":
                    self._stopped[pid] = time.monotonic() + rng.uniform(*STILL_S)
                return True
        return False

    def wait(self, seconds: float) -> int | None:
        """Wait for the end, and end what is left of the session. The exit code, or None if it hung."""
        ended = self.ends_within(seconds)
        self._resume(float("inf"))
        code = self._process.poll() if ended else None
        if ended:
            self._wait_for_family(15.0)
        for pid in [*(pid for pid, _ in self.family()), *([] if ended else [self._process.pid])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        return code

    def said(self) -> str:
        """The end of what the run printed."""
        return self._log.read_text(errors="replace")[-6000:]

    def family(self) -> list[tuple[int, str]]:
        """Processes of the run's session with their command lines; the run's own is not among them."""
        family = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(entry.name)
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if os.getsid(pid) == self._process.pid != pid and state != "Z":
                    name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    family.append((pid, name))
        return family

    def _resume(self, now: float) -> None:
        for pid in [pid for pid, until in self._stopped.items() if until <= now]:
            del self._stopped[pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _wait_for_family(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while self.family() and time.monotonic() < ends_at:
            time.sleep(0.2)


def kind_of(command: str) -> str | None:
    """Which kind of victim a process of Ray is, by its command line."""
    if "/raylet/raylet " in command:
        return "raylet"
    if command.startswith(("ray::TrialActor", "ray::ResourceTrainable")):
        return "actor"
    return "worker" if command.startswith("ray::") else None
