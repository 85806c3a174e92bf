"""The counts behind the progress display, and what it shows on a terminal and in a log."""

from __future__ import annotations

import io

from rich.console import Console

from study.cli.bars import BarProgress, LineProgress
from study.executors.progress import Progress


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
    assert out.getvalue().splitlines() == [
        "a ok: 1/4 trials done, 2 running, 0 failed",
        "b pruned: 2/4 trials done, 1 running, 0 failed, 1 pruned",
        "c diverged: 3/4 trials done, 0 running, 1 failed, 1 pruned",
    ]


def test_a_terminal_gets_a_bar_of_epochs_with_the_time_left():
    out = io.StringIO()
    with BarProgress(Console(file=out, width=200, force_terminal=True)) as progress:
        run_four(progress)
        bar = progress._bar
        assert (bar.tasks[0].completed, bar.tasks[0].total) == (6, 8)
        bar.refresh()
    assert "3/4 trials done, 0 running, 1 failed, 1 pruned" in out.getvalue()
    assert "about 0:00 left" in out.getvalue()
