"""The task of a trial."""

from __future__ import annotations

from study.settings import TrialSettings
from study.tasks.classification import Classification
from study.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (Classification(),)}
"""The tasks that come with the package, by name. The next one is listed here."""


def task_of(settings: TrialSettings) -> Task:
    """Return what a trial learns."""
    return TASKS["classification"]
