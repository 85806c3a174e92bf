"""How a trial ends, and what follows from it: which endings are final, and which are worth another try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK, DIVERGED, OOM, PRUNED, TIMEOUT, FAILED = "ok", "diverged", "oom", "pruned", "timeout", "failed"
UNFIT = "unfit"
"""Predicted not to fit the memory of the machine, and never started."""

FINAL = (OK, DIVERGED, OOM, PRUNED)
"""Endings that the same settings would meet again: `run` does not repeat them. A timeout or a failure may go
away with more time or a repaired machine, so a later `run` tries those anew. A trial that is `UNFIT` waits
for a machine that it fits."""

INFRASTRUCTURE_ERRORS = frozenset(
    {
        "ActorDiedError",
        "ActorUnavailableError",
        "ControllerError",
        "LocalRayletDiedError",
        "NCCLHangError",
        "NodeDiedError",
        "ObjectLostError",
        "OwnerDiedError",
        "PeerLostError",
        "PreemptionError",
        "ProcessLostError",
        "RayActorError",
        "WorkerCrashedError",
        "WorkerGroupStartupFailedError",
        "WorkerGroupStartupTimeoutError",
        "WorkerHealthCheckFailedError",
        "WorkerHealthCheckTimeoutError",
    }
)
"""Classes of Ray's errors that say a process or machine was lost, not that the trial is wrong."""

_PEER_TEXTS = ("gloo/", "NCCL", "Connection closed by peer", "Connection reset by peer", "DistBackendError")

_MEMORY_TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "OutOfMemory")


class DivergedError(Exception):
    """The loss is no longer a finite number."""


class UnfitError(MemoryError):
    """A trial is predicted not to fit the memory of its machine."""


class TimeUpError(Exception):
    """The deadline passed."""


class StopError(Exception):
    """The caller asked to stop after an epoch."""


class ProcessLostError(Exception):
    """The process of a trial is gone, and Ray says no more than a text."""


class PeerLostError(Exception):
    """Another worker of the trial is gone; this one could not go on without it."""


class AbandonedError(BaseException):
    """The trial is given up at once and without a row. It is no `Exception`, so that no row is made of it."""


def outcome_of(error: BaseException) -> str:
    """Return the outcome that an exception stands for.

    >>> outcome_of(MemoryError())
    'oom'
    >>> outcome_of(ValueError("no"))
    'failed'
    """
    if isinstance(error, DivergedError):
        return DIVERGED
    if isinstance(error, TimeUpError):
        return TIMEOUT
    if isinstance(error, StopError):
        return PRUNED
    if isinstance(error, UnfitError):
        return UNFIT
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "OutOfMemory"):
        return OOM
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_TEXTS):
        return OOM
    return FAILED


def worth_retrying(error: BaseException) -> bool:
    """Whether the same trial may succeed on another try within this run: a process or machine was lost."""
    return any(kind.__name__ in INFRASTRUCTURE_ERRORS for kind in type(error).__mro__)


def lost_a_peer(row: Mapping[str, Any]) -> bool:
    """Return whether a trial's row tells of a collective that failed because another worker was gone.

    >>> lost_a_peer({"outcome": "failed", "error_class": "RuntimeError", "error_message": "[gloo/pair.cc] x"})
    True
    """
    told = f"{row['error_class']}: {row['error_message']}"
    return row["outcome"] == FAILED and any(text in told for text in _PEER_TEXTS)


def describe(error: BaseException) -> dict[str, Any]:
    """The columns `outcome`, `error_class` and `error_message` of a trial that ended with `error`."""
    return {
        "outcome": outcome_of(error),
        "error_class": type(error).__name__,
        "error_message": str(error)[:2000],
    }
