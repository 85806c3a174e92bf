"""The name of a trial's task, which needs neither its data nor PyTorch."""

from __future__ import annotations

from study.settings.data import is_text
from study.settings.trial import TrialSettings

CONTEXT_LENGTH = 256
"""Tokens of a sequence, where a study does not say."""


def task_name(settings: TrialSettings) -> str:
    """The name of what a trial learns: what its study says, or what its data are for."""
    if settings.task.name is not None:
        return settings.task.name
    return "language" if is_text(settings.data.name) else "classification"
