"""Checkpoints: what a trial goes on from after its process, its machine or its run was killed.

``<store>/checkpoints/<trial>.pt`` is the state after the last finished epoch, whole or not there. It belongs
to the trial and not to a study, so any run on the store can go on from it. It is written by rank 0 alone,
read with ``weights_only=True``, and removed once the trial has its final row.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from study.errors import StoreError
from study.store.files import read_file, remove_file, write_file

_FORMAT = 1


def save(store: str | Path, state: dict[str, Any]) -> None:
    """Write the state that `train_trial` hands out after an epoch, in place of the one before.

    Raises:
        StoreError: The store cannot be written; the state before is still there.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "torch": str(torch.__version__), "state": state}, buffer)
    write_file(store, _name(state["trial_id"]), buffer.getvalue())


def load(store: str | Path, trial_id: str) -> dict[str, Any] | None:
    """Return the last saved state, on the CPU; None if there is none that this version can go on from.

    A file that is torn or foreign, or that another version of PyTorch wrote, counts for nothing: the trial
    starts anew, because going on under other arithmetic would give numbers of neither version.
    """
    content = read(store, trial_id)
    return None if content is None else parse(content, trial_id)


def remove(store: str | Path, trial_id: str) -> None:
    """Remove the trial's state, if there is one."""
    remove_file(store, _name(trial_id))


def _name(trial_id: str) -> str:
    return f"checkpoints/{trial_id}.pt"


def read(store: str | Path, trial_id: str) -> bytes | None:
    """The file as it is; None if there is none that can be read."""
    try:
        return read_file(store, _name(trial_id))
    except StoreError:
        return None


def parse(content: bytes, trial_id: str) -> dict[str, Any] | None:
    """The state that a file holds; None where it is torn, foreign, or of another version of PyTorch."""
    try:
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        fits = (saved["format"], saved["torch"]) == (_FORMAT, str(torch.__version__))
        return saved["state"] if fits and saved["state"]["trial_id"] == trial_id else None
    except Exception:  # torch raises a dozen kinds here, and each means that nothing can be read
        return None
