"""Autocast inside a graph, on every device: some, such as ``meta``, have none."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast_state(device_type: str) -> tuple[bool, torch.dtype]:
    """Return whether autocast is in force on a device type, and to which dtype."""
    if not torch.amp.is_autocast_available(device_type):
        return False, torch.float32
    return torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)


def autocast_as(device_type: str, enabled: bool, dtype: torch.dtype) -> AbstractContextManager:
    """A context in which autocast is in a state from `autocast_state`, and keeps no converted weights."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, dtype, enabled, cache_enabled=False)
