"""The task of a trial, by its name or its import path."""

from __future__ import annotations

from functools import lru_cache

from study.code import call, find, is_own
from study.errors import StudyError, nearest
from study.settings.setting import Options
from study.settings.trial import TrialSettings
from study.tasks.classification import Classification
from study.tasks.language import Language
from study.tasks.naming import task_name
from study.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (Classification(), Language())}
"""The tasks that come with the package, by name. The next one is listed here."""


def task_of(settings: TrialSettings) -> Task:
    """Return what a trial learns.

    Raises:
        StudyError: There is no such task, or what the study brings is none.
    """
    return _task(task_name(settings), settings.task.options, settings.code)


@lru_cache(maxsize=64)
def _task(name: str, options: Options, folder: str | None) -> Task:
    if not is_own("task.name", name):
        if name not in TASKS:
            raise StudyError(
                "task.name", value=name, rule="must be a known task", remedy=nearest(name, TASKS)
            )
        return TASKS[name]
    task = call("task.name", name, find("task.name", name, folder), options=dict(options))
    if not isinstance(task, Task):
        raise StudyError(
            "task.name",
            value=name,
            rule=f"must be a class that derives from study.tasks.task.Task, not {type(task).__name__}",
        )
    return task
