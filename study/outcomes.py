"""How a trial ends, and what follows from it: which endings are final, and which are worth another try."""

from __future__ import annotations

from typing import Any

OK, DIVERGED, OOM, PRUNED, TIMEOUT, FAILED = "ok", "diverged", "oom", "pruned", "timeout", "failed"

FINAL = (OK, DIVERGED, OOM, PRUNED)
"""Endings that the same settings would meet again: `run` does not repeat them. A timeout or a failure may go
away with more time or a repaired machine, so a later `run` tries those anew."""

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
        "PreemptionError",
        "RayActorError",
        "WorkerCrashedError",
        "WorkerGroupStartupFailedError",
        "WorkerGroupStartupTimeoutError",
        "WorkerHealthCheckFailedError",
        "WorkerHealthCheckTimeoutError",
    }
)
"""Classes of Ray's errors that say a process or machine was lost, not that the trial is wrong."""

_MEMORY_TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "OutOfMemory")


class DivergedError(Exception):
    """The loss is no longer a finite number."""


class TimeUpError(Exception):
    """The deadline passed."""


class StopError(Exception):
    """The caller asked to stop after an epoch."""


def outcome_of(error: BaseException) -> str:
    """The outcome that an exception stands for.

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
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "OutOfMemory"):
        return OOM
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_TEXTS):
        return OOM
    return FAILED


def worth_retrying(error: BaseException) -> bool:
    """Whether the same trial may succeed on another try within this run: a process or machine was lost."""
    return any(kind.__name__ in INFRASTRUCTURE_ERRORS for kind in type(error).__mro__)


def describe(error: BaseException) -> dict[str, Any]:
    """The columns `outcome`, `error_class` and `error_message` of a trial that ended with `error`."""
    return {
        "outcome": outcome_of(error),
        "error_class": type(error).__name__,
        "error_message": str(error)[:2000],
    }
