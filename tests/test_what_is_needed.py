"""What must be installed: a trial runs without Ray, and a network trains with PyTorch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_without(blocked: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has none of the blocked modules."""
    program = f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)!r}))\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, cwd=ROOT
    )


TRAIN = """
from study.identity import resolve, trial_id
from study.store.writer import write_result
from study.settings.data import DataSettings
from study.settings.model import ModelSettings
from study.settings.train import TrainSettings
from study.settings.trial import Trial, TrialSettings
from study.train.trial import train_trial
settings = resolve(TrialSettings(
    data=DataSettings(name="synthetic:1x8x8x4", train_examples=64, test_examples=32),
    model=ModelSettings(name="revnet38", depth=14, width=0.25),
    train=TrainSettings(epochs=1, batch_size=32),
))
result = train_trial(Trial(trial_id=trial_id(settings), study="bare", settings=settings))
assert result.trial["outcome"] == "ok", result.trial["error_message"]
"""
WITHOUT = {"ray", "optuna", "pydantic", "duckdb", "plotly", "typer", "rich", "yaml", "jinja2"}


def test_a_trial_runs_on_a_machine_with_torch_and_pyarrow_alone():
    done = run_without(WITHOUT, TRAIN)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks():
    done = run_without(WITHOUT, "import study.spec.study")
    assert done.returncode != 0
    assert "import of pydantic halted" in done.stderr


def test_a_network_trains_with_torch_alone():
    code = "import torch, revmodels\n" + (
        "model = revmodels.create_model('revnet38', num_classes=10, width=0.25)\n"
        "model(torch.rand(2, 3, 8, 8)).sum().backward()"
    )
    done = run_without({*WITHOUT, "study", "analysis", "pyarrow", "sklearn"}, code)
    assert done.returncode == 0, done.stderr
