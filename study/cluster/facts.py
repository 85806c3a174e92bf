"""What a machine of a cluster has: cores, memory, GPUs with their memory. Each machine tells it of itself."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from study.plan.machine import memory_of_machine

_ASK = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_MIB = 2**20


def facts() -> dict[str, Any]:
    """Return cores, memory and GPUs of this machine, as plain values.

    GPUs are those that the driver names, for Ray hides them from a process that did not ask for one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cores": cores, "memory_bytes": memory_of_machine(), "gpus": gpus(_driver_says())}


def gpus(said: str) -> list[tuple[str, int]]:
    """Return name and bytes of each GPU from what the driver says of them.

    >>> gpus("NVIDIA H100 80GB HBM3, 81559")
    [('NVIDIA H100 80GB HBM3', 85520809984)]
    """
    found = []
    for line in said.splitlines():
        name, comma, size = line.rpartition(",")
        if comma and size.strip().isdecimal():
            found.append((name.strip(), int(size) * _MIB))
    return found


def _driver_says() -> str:
    try:
        return subprocess.run(_ASK, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
