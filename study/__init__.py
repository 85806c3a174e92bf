"""Studies: many trials described in one file, planned, trained on Ray, and kept as rows.

From the bottom to the top, each room importing from those before it alone:

- `errors`, `setting`, `settings`, `outcomes`, `provenance`
- `data` (where examples come from), `identity`, `spec` (the study file), `store` (rows on disk)
- `train` (one trial), `plan` (what a study will run)
- `cluster` (machines), `executors` (trials on Ray)
- `run`, `rerun`, `status`, `doctor`, `catalog`, and `cli` (the command line)

The names below are imported when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.plan.expand import make_plan
    from study.run import run_study
    from study.spec.load import load_study
    from study.spec.study import Study
    from study.train.trial import train_trial

__all__ = ["Study", "load_study", "make_plan", "run_study", "train_trial"]

_HOMES = {
    "Study": "spec.study",
    "load_study": "spec.load",
    "make_plan": "plan.expand",
    "run_study": "run",
    "train_trial": "train.trial",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"study.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'study' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
