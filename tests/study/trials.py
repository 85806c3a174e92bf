"""Trials that go to another process as plain values."""

from __future__ import annotations

from typing import Any

from study.settings.trial import Trial, settings_from_dict


def trial_from_dict(values: dict[str, Any]) -> Trial:
    """Rebuild a `Trial` from `Trial.to_dict`."""
    return Trial(**{**values, "settings": settings_from_dict(values["settings"])})
