import json

import pytest

from analysis.report.content import Content
from analysis.report.progress import MOST_SHOWN, Progress, RunningTrial, parsed_curve, table, waiting
from analysis.store.store import open_store
from study.cli.page_progress import progress_of
from study.store.lease import MOST_POINTS, longer, parse_lease
from study.store.leases import Hold, acquire, read_leases

RUNNING = (RunningTrial(what="revnet38", host="here", share=0.25, curve=((10, 2.0), (20, None), (30, 1.0))),)


def test_the_counts_of_a_run_are_told_in_one_line():
    text = Progress(
        planned=1200,
        done=37,
        failed=1,
        retried=2,
        left=1162,
        rate_per_hour=310.4,
        time_left_s=960,
        running=RUNNING,
    ).text()
    assert text == (
        "37 of 1,200 done · 1 running · 1 failed · 2 retried · 310 trials an hour · about 16 min left"
    )
    assert Progress(planned=12, done=9, left=3).text() == "Nothing runs now; 3 trials of 12 left."
    assert Progress(planned=12, done=12, left=0).text() == ""


@pytest.mark.parametrize(
    ("progress", "judged", "waits"),
    [
        (None, 0, False),
        (Progress(planned=120, running=()), 0, False),  # it runs no more: what there is, is told
        (Progress(planned=120, running=RUNNING), 29, True),
        (Progress(planned=120, running=RUNNING), 30, False),
        (Progress(planned=12, running=RUNNING), 7, True),
        (Progress(planned=12, running=RUNNING), 8, False),
        (Progress(planned=4, running=RUNNING), 4, False),
        (Progress(running=RUNNING), 8, False),
    ],
)
def test_recommendations_wait_for_enough_trials_while_a_study_runs(progress, judged, waits):
    assert bool(waiting(progress, judged)) is waits


def test_a_page_of_a_running_study_recommends_nothing_yet_and_then_does(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(seed=seed, strategy=s) for seed in range(2) for s in ("store", "reverse")])
    store = open_store(tmp_path)
    content = Content(store, {r["trial_id"]: n for n, r in enumerate(store.rows("trials"))})
    early = content.told(Progress(planned=16, done=4, left=11, running=RUNNING))
    assert "Recommendations come from 8 on" in early.parts()["answer"]
    assert 'class="answer"' not in early.parts()["answer"] and early.parts()["equal_memory"] == "[]"
    later = early.told(Progress(planned=4, done=4, left=0, running=()))
    assert 'class="answer"' in later.parts()["answer"] and later.figures is early.figures
    assert len(later.equal_memory) == 1


def test_the_curve_of_a_running_trial_is_a_line_from_its_first_to_its_last_step():
    (line,) = table(Progress(running=RUNNING))
    assert line["points"] == "2.0,2.0 158.0,32.0" and line["percent"] == 25
    assert line["told"] == "training loss from 2 at step 10 to 1 at step 30"
    assert len(table(Progress(running=RUNNING * 30))) == MOST_SHOWN
    assert parsed_curve("[[1, 0.5], [2, null]]") == ((1, 0.5), (2, None))
    assert parsed_curve("[[1") == parsed_curve("") == parsed_curve("[1]") == ()


def test_a_lease_carries_a_curve_of_bounded_size_that_older_readers_ignore(tmp_path):
    curve = ""
    for step in range(1, 1_000):
        curve = longer(curve, step, float("nan") if step == 999 else 1 / step)
    points = json.loads(curve)
    assert len(points) <= MOST_POINTS and points[0] == [1, 1.0] and points[-1] == [999, None]
    hold = acquire(tmp_path, "a" * 16, study="s", epochs=4, what="revnet38 seed 1")
    assert isinstance(hold, Hold)
    hold.progress(1, {"step": 5, "loss_train": 0.5, "memory_peak_bytes": 7})
    hold.is_ours()
    lease = read_leases(tmp_path)["a" * 16]
    assert (lease.what, lease.memory_bytes, lease.curve) == ("revnet38 seed 1", 7, "[[5, 0.5]]")
    old = {
        k: v for k, v in json.loads(lease.to_bytes()).items() if k not in ("what", "memory_bytes", "curve")
    }
    assert parse_lease(json.dumps(old).encode()).curve == ""
    hold.release()


def test_the_command_line_tells_the_page_what_status_tells(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(study="s"), new_trial(study="s", seed=1, outcome="failed", error_class="X")])
    (tmp_path / "study=s/study.json").write_text(json.dumps({"name": "s", "planned": 5}))
    hold = acquire(tmp_path, "a" * 16, study="s", epochs=4, what="revnet38 seed 2")
    hold.progress(2, {"step": 5, "loss_train": 0.5})
    hold.is_ours()
    found = progress_of(open_store(tmp_path, "s"))
    assert (found.planned, found.done, found.failed, found.left) == (5, 2, 1, 2)
    assert found.running[0].what == "revnet38 seed 2" and found.running[0].share == 0.5
    assert not found.ended
    hold.release()
    assert not progress_of(open_store(tmp_path, "s")).ended
