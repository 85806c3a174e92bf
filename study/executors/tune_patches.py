"""What Ray Tune makes of failures as of Ray 2.60 and must not, mended in this process before trials run."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.tune.execution.tune_controller import TuneController


def mend_tune() -> None:
    """Mend all of it; what is mended already stays as it is."""
    deaths_for_memory()
    unfinished_trials()


def deaths_for_memory() -> None:
    """Let Tune take Ray's `OutOfMemoryError` for what it is, the death of an actor that Ray has ended.

    Tune knows errors of actors and of tasks, this is neither, and it gives up the whole run.
    """
    given_up = RayActorManager._actor_task_failed
    if getattr(given_up, "mended", False):
        return

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            death = ActorDiedError()
            death.error_msg = str(exception)
            exception = death
        given_up(manager, tracked_actor_task, exception)

    failed.mended = True  # type: ignore[attr-defined]
    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign, assignment]


def unfinished_trials() -> None:
    """Keep Tune from stopping the trials that still run when it gives up, because Ray died or on any error.

    A trial that Tune stops in good order has been pruned: it writes that as its row, and no later run trains
    it again. One whose process is ended leaves no row, and the next run goes on with it.
    """
    stop_all = TuneController._cleanup_trials
    if getattr(stop_all, "mended", False):
        return

    def clean_up(controller: TuneController) -> None:
        if sys.exc_info()[0] is None:  # Tune cleans up in the handler of what ended it, too
            stop_all(controller)
            return
        with contextlib.suppress(Exception):  # Ray may be what died
            controller._actor_manager.cleanup()

    clean_up.mended = True  # type: ignore[attr-defined]
    TuneController._cleanup_trials = clean_up  # type: ignore[method-assign]
