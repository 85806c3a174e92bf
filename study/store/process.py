"""Names processes beyond their numbers, so that one that is gone is not taken for a later one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def process_name(pid: int) -> str:
    """Return ``machine/process``, or an empty text where the system does not tell.

    The machine is one boot of one kernel and one name space of process numbers. A process that is gone has
    no start time, and a zombie counts as gone.
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


def is_gone(name: str, pid: int) -> bool:
    """Return whether a process of this machine has ended; False for one of another machine, of which nothing
    is known.
    """
    machine, ours = name.rpartition("/")[0], process_name(os.getpid()).rpartition("/")[0]
    return bool(name) and machine == ours and name != process_name(pid)
