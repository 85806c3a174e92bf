"""The counts behind the progress display, and what it shows on a terminal and in a log."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from study.cli.bars import BarProgress, LineProgress
from study.executors.progress import Progress, in_words
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.trial import Trial, TrialSettings


def planned(trial_id: str) -> Trial:
    return Trial(trial_id=trial_id, study="s", settings=TrialSettings(seed=ord(trial_id)))


def run_four(progress: Progress) -> None:
    progress.begin(trials=4, epochs=8)
    for trial in ("a", "b", "c"):
        progress.started(trial, epochs=2)
    progress.epoch("a", epoch=1)
    progress.epoch("a", epoch=2)
    progress.finished("a", "ok")
    progress.epoch("b", epoch=1)
    progress.finished("b", "pruned")
    progress.finished("c", "diverged")


def test_counts_follow_the_trials():
    progress = Progress()
    run_four(progress)
    assert (progress.total, progress.done, progress.failed) == (4, 3, 1)
    assert progress.ended == {"a": "ok", "b": "pruned", "c": "diverged"}
    progress.started("d", epochs=2)
    assert set(progress.running) == {"d"}


def test_a_log_gets_a_line_per_trial():
    out = io.StringIO()
    run_four(LineProgress(Console(file=out, width=200)))
    assert out.getvalue().splitlines() == ["1/4 a: ok", "2/4 b: pruned", "3/4 c: diverged"]


@pytest.mark.parametrize(
    ("changes", "numbers", "line"),
    [
        (
            {"compute": "bf16", "stream": "bf16"},
            {"accuracy_val": 0.981, "loss_val": 0.1, "memory_peak_bytes": 1.9e6, "wall_s": 14.3},
            "1/12 revnet38 d38 w0.5 reverse bf16 seed 1: ok, 98.1 %, 1.90 MB, 14 s",
        ),
        (
            {"compute": "bf16", "stream": "fp32", "coupling": "exact"},
            {"bits_per_byte_val": 2.31, "loss_val": 1.6, "memory_peak_bytes": 2e9, "wall_s": 125.0},
            "1/12 revnet38 d38 w0.5 reverse bf16 on fp32 exact seed 1: ok, 2.3100 bits per byte, 2.00 GB, "
            "2 min 5 s",
        ),
        (
            {},
            {"loss_val": 0.25, "wall_s": 1.04},
            "1/12 revnet38 d38 w0.5 reverse fp32 seed 1: ok, loss 0.25, 1.0 s",
        ),
        ({}, {"accuracy_val": math.nan}, "1/12 revnet38 d38 w0.5 reverse fp32 seed 1: ok"),
    ],
)
def test_a_line_tells_what_the_trial_was_and_how_it_ended(changes, numbers, line):
    settings = TrialSettings(
        model=ModelSettings(name="revnet38", depth=38, width=0.5),
        memory=MemorySettings(strategy="reverse"),
        precision=PrecisionSettings(**changes),
        seed=1,
    )
    out = io.StringIO()
    progress = LineProgress(Console(file=out, width=40))
    progress.begin(trials=12, epochs=24)
    progress.started("a", epochs=2, trial=Trial(trial_id="a", study="s", settings=settings))
    progress.finished("a", "ok", numbers=numbers)
    assert out.getvalue().splitlines() == [line]


def test_a_terminal_has_a_line_for_each_running_trial():
    out = io.StringIO()
    with BarProgress(Console(file=out, width=200, force_terminal=True)) as progress:
        progress.begin(trials=3, epochs=6)
        for trial in ("a", "b"):
            progress.started(trial, epochs=2, trial=planned(trial))
        progress.epoch("b", epoch=1)
        lines = [(task.fields["counts"], task.completed) for task in progress._bar.tasks[1:]]
        assert lines == [(in_words(planned("a")), 0), (in_words(planned("b")), 1)]
        progress.finished("a", "ok")
        progress.passed("b", "elsewhere")
        assert len(progress._bar.tasks) == 1


def test_a_terminal_gets_a_bar_of_epochs_with_the_time_left():
    out = io.StringIO()
    with BarProgress(Console(file=out, width=200, force_terminal=True)) as progress:
        run_four(progress)
        bar = progress._bar
        assert (bar.tasks[0].completed, bar.tasks[0].total) == (6, 8)
        bar.refresh()
    assert "3/4 trials done, 0 running, 1 failed, 1 pruned" in out.getvalue()
    assert "about 0:00 left" in out.getvalue()
