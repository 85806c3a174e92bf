"""What a run tells TensorBoard and MLflow, read back through their own libraries."""

from __future__ import annotations

import sys

import pytest

from study.errors import StudyError
from study.executors.loggers import numbers_in, open_logger
from study.executors.progress import Progress
from study.settings.model import MemorySettings, ModelSettings
from study.settings.trial import Trial, TrialSettings

SETTINGS = TrialSettings(
    model=ModelSettings(name="revnet38", depth=38), memory=MemorySettings(strategy="reverse")
)
TRIAL = Trial(trial_id="0123abcd", study="mine", settings=SETTINGS)
FIRST = {"epoch": 1, "loss_val": 2.0, "accuracy_val": 0.5, "time_this_iter_s": 9.0, "config": {"a": 1}}
LAST = {"epoch": 2, "loss_val": 1.0, "accuracy_val": 0.75, "memory_peak_bytes": 1_900_000, "outcome": "ok"}


def tell(spec: str) -> Progress:
    """A run of one trial and two evaluations, told to a logger."""
    with Progress() as progress:
        progress.loggers.append(open_logger(spec))
        progress.started(TRIAL.trial_id, epochs=2, trial=TRIAL)
        progress.epoch(TRIAL.trial_id, epoch=1)
        progress.measured(TRIAL.trial_id, epoch=1, numbers=FIRST)
        progress.started(TRIAL.trial_id, epochs=2, trial=TRIAL)  # it lost its process, and goes on
        progress.measured(TRIAL.trial_id, epoch=2, numbers={"epoch": 2, "loss_val": 1.0})
        progress.finished(TRIAL.trial_id, "ok", numbers=LAST)  # the last evaluation, told once more
        assert progress.loggers, "the logger failed"
    return progress


def test_tensorboard_has_the_curves_of_each_trial(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tell(f"tensorboard:{tmp_path}")
    found = events.EventAccumulator(str(tmp_path / "mine" / TRIAL.trial_id)).Reload()
    curve = [(e.step, e.value) for e in found.Scalars("accuracy_val")]
    assert curve == [(1, 0.5), (2, 0.75)]
    assert [e.value for e in found.Scalars("loss_val")] == [2.0, 1.0]
    assert found.Scalars("memory_peak_bytes")[0].value == 1_900_000
    assert "time_this_iter_s" not in found.Tags()["scalars"]


def test_mlflow_has_a_run_for_each_trial(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/runs.db"
    tell(f"mlflow:{uri}")
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["memory.strategy"] == "reverse"
    assert (run.data.tags["trial_id"], run.data.tags["outcome"]) == (TRIAL.trial_id, "ok")
    history = client.get_metric_history(run.info.run_id, "loss_val")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.0)]


@pytest.mark.parametrize("spec", ["wandb:x", "tensorboard", "mlflow:", ""])
def test_a_logger_that_is_none_is_refused_with_the_rule(spec):
    with pytest.raises(StudyError, match="must be tensorboard:DIR or mlflow:URI, got"):
        open_logger(spec)


def test_a_target_that_its_library_refuses_is_refused_before_anything_is_trained(tmp_path):
    pytest.importorskip("mlflow")
    with pytest.raises(StudyError, match="MLflow cannot log to 'nonsense://x'"):
        open_logger("mlflow:nonsense://x")


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")]
)
def test_a_library_that_is_not_installed_is_named_with_the_remedy(monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StudyError, match=rf"not installed .*pip install 'revstudy\[{kind}\]'"):
        open_logger(f"{kind}:anywhere")


def test_a_logger_that_fails_is_dropped_and_the_run_goes_on(tmp_path, monkeypatch):
    notes = []
    progress = Progress()
    monkeypatch.setattr(progress, "note", notes.append)

    class Full:
        """A logger whose disk is full."""

        def __getattr__(self, name):
            raise OSError("no space left")

    progress.loggers.append(Full())
    progress.started(TRIAL.trial_id, epochs=2, trial=TRIAL)
    progress.finished(TRIAL.trial_id, "ok", numbers=LAST)
    assert progress.ended == {TRIAL.trial_id: "ok"}
    assert progress.loggers == []
    assert notes == [
        "Full failed, and is told nothing more; the store has every row (OSError: no space left)"
    ]


def test_numbers_of_ones_own_metrics_are_kept_and_what_is_no_number_is_not():
    found = numbers_in({"perplexity_val": 3.0, "loss_val": float("nan"), "done": True, "pid": 7, "epoch": 1})
    assert found == {"perplexity_val": 3.0}
