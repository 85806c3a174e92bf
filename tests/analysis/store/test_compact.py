"""A merge that is cut off anywhere leaves a store that reads the same, and the next one finishes it."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.errors import StoreError, UnknownStudyError
from analysis.schema import TABLES, TRIALS
from analysis.store import merging
from analysis.store.compact import compact
from analysis.store.store import open_store


@pytest.fixture
def store(tmp_path, new_trial, write):
    """Nine trials with their curves and probes, one of them tried twice, and values that are not finite."""
    rows = [new_trial(seed=i, epochs=3, number=i) for i in range(7)]
    rows.append({**new_trial(seed=7, epochs=2), "outcome": "diverged", "accuracy_val": float("nan")})
    retried = new_trial(seed=8, epochs=3)
    write(tmp_path / "store", [*rows, {**retried, "outcome": "failed", "epochs_done": 1}])
    write(tmp_path / "store", [{**retried, "attempt": 1}])
    return tmp_path / "store"


def contents(store):
    """Every row of every view as text, so that NaN is the same as NaN."""
    opened = open_store(store)
    assert opened.skipped == ()
    return {name: [json.dumps(r, default=str) for r in opened.rows(name)] for name in TABLES}


def steps_of(store):
    steps = []
    compact(store, progress=steps.append)
    return steps


def test_a_merged_store_reads_the_same_from_one_file_per_table(store):
    before = contents(store)
    done = compact(store)
    assert {(d.table, d.files, d.rows) for d in done} == {
        ("trials", 10, 10),
        ("epochs", 10, 7 * 3 + 2 + 1 + 3),
        ("blocks", 10, 90),
    }
    assert contents(store) == before
    for table in TABLES:
        (file,) = (store / "study=demo" / table).iterdir()
        assert file.name.startswith("compact-")
    assert compact(store) == []


def test_new_trials_are_read_beside_the_merged_file_and_merged_into_the_next(store, new_trial, write):
    compact(store)
    write(store, [new_trial(seed=20)])
    assert len(contents(store)["trials"]) == 10
    before = contents(store)
    assert {d.files for d in compact(store)} == {2}
    assert contents(store) == before
    assert len(list((store / "study=demo" / "trials").iterdir())) == 1


def test_curves_whose_row_is_still_to_come_are_not_merged(store, new_trial, write):
    """A process that is killed before it writes the row leaves them, and the attempt is made once more."""
    killed = new_trial(seed=30, epochs=3, number=30)
    write(store, [killed])
    (store / "study=demo" / "trials" / f"{killed['trial_id']}-a0.parquet").unlink()
    compact(store)
    write(store, [killed])
    for _ in range(2):
        opened = open_store(store)
        of_it = [row["epoch"] for row in opened.rows("epochs") if row["trial_id"] == killed["trial_id"]]
        assert of_it == [1, 2, 3]
        blocks = [row for row in opened.rows("blocks") if row["trial_id"] == killed["trial_id"]]
        assert len(blocks) == len({(row["epoch"], row["block"], row["name"]) for row in blocks}) > 0
        compact(store)


def test_a_large_table_is_merged_a_range_of_trials_at_a_time(store, new_trial, write, monkeypatch):
    before = contents(store)
    ids = sorted(row["trial_id"] for row in open_store(store).rows("trials"))
    monkeypatch.setattr(merging, "PART_BYTES", 10_000)
    monkeypatch.setattr(merging, "PART_ROWS", 5)
    steps = steps_of(store)
    parts = [step for step in steps if "write epochs, part" in step]
    assert len(parts) > 3 and parts[0].endswith(f"part 1 of {len(parts)}")
    assert contents(store) == before
    write(store, [new_trial(seed=seed) for seed in range(30, 36)])
    before = contents(store)
    assert len([step for step in steps_of(store) if "write epochs, part" in step]) > 5
    assert contents(store) == before
    (file,) = (store / "study=demo" / "epochs").iterdir()
    merged = pq.read_table(file)["trial_id"].to_pylist()
    assert merged == sorted(merged) and set(ids) < set(merged)


@pytest.mark.parametrize("spoil", ["torn", "newer"])
def test_a_merged_file_that_cannot_be_taken_over_is_kept(store, new_trial, write, spoil):
    """Else the next merged file would take its place, and its rows would be gone."""
    compact(store)
    (file,) = (store / "study=demo" / "trials").iterdir()
    whole = file.read_bytes()
    if spoil == "torn":
        file.write_bytes(whole[:-9])
    else:
        rows = pq.read_table(file)
        pq.write_table(rows.append_column("of_tomorrow", pa.nulls(rows.num_rows, pa.int64())), file)
    kept = file.read_bytes()
    write(store, [new_trial(seed=20)])
    with pytest.raises(StoreError, match=r"nothing was (changed|deleted)"):
        compact(store)
    assert file.read_bytes() == kept
    file.write_bytes(whole)
    compact(store)
    assert len(contents(store)["trials"]) == 10


def test_a_merge_killed_before_any_step_loses_and_doubles_nothing(store, tmp_path):
    before = contents(store)
    copy = tmp_path / "count"
    subprocess.run(["cp", "-r", store, copy], check=True)
    steps = steps_of(copy)
    kinds = {step.rpartition(": ")[2].split()[0] for step in steps}
    assert kinds == {"write", "swap", "delete", "clear"}
    places = [0, 3, 4, len(steps) // 2, len(steps) - 1]
    assert steps[3].endswith("swap the manifest") and steps[-1] == "clear the manifest"
    for place in places:
        copy = tmp_path / f"killed-{place}"
        subprocess.run(["cp", "-r", store, copy], check=True)
        context = multiprocessing.get_context("spawn")
        killed = context.Process(target=_merge_until, args=(str(copy), place))
        killed.start()
        killed.join()
        assert killed.exitcode == 9
        assert contents(copy) == before, steps[place]
        compact(copy)
        assert contents(copy) == before, steps[place]
        for table in TABLES:
            assert len(list((copy / "study=demo" / table).iterdir())) == 1, steps[place]
        assert not any(
            entry["replaces"]
            for entry in json.loads((copy / "study=demo" / "compact.json").read_text())["tables"].values()
        )


def _merge_until(store, place):
    count = iter(range(1_000_000))
    compact(store, progress=lambda step: os._exit(9) if next(count) == place else None)


def test_readers_see_every_row_once_while_merges_and_writers_run(store, new_trial, write):
    """A reader may meet any moment of a merge: between its listing and its reading files come and go."""
    stop, problems = threading.Event(), []

    def merge():
        number = 100
        try:
            while not stop.is_set():
                write(store, [new_trial(seed=number, epochs=1), new_trial(seed=number + 1, epochs=1)])
                compact(store)
                number += 2
        except Exception as error:  # a thread's exception would be lost
            problems.append(error)

    thread = threading.Thread(target=merge)
    thread.start()
    try:
        for _ in range(5):
            opened = open_store(store)
            ids = [r["trial_id"] for r in opened.rows("trials")]
            assert len(ids) == len(set(ids)) >= 9
            keys = [(r["trial_id"], r["attempt"], r["epoch"]) for r in opened.rows("epochs")]
            assert len(keys) == len(set(keys)) >= 26
            assert opened.skipped == ()
    finally:
        stop.set()
        thread.join()
    assert problems == []


def test_a_store_opened_before_a_merge_reads_the_same_after_it(store):
    before = contents(store)
    opened = open_store(store)
    opened.table("trials")
    compact(store)
    assert [json.dumps(r, default=str) for r in opened.rows("epochs")] == before["epochs"]


def test_what_it_does_not_know_stays_as_it_is(store, new_trial, write_file):
    folder = store / "study=demo" / "trials"
    (folder / "torn-a0.parquet").write_bytes(b"PAR1 torn")
    newer = TRIALS.arrow.append(pa.field("column_of_tomorrow", pa.string()))
    row = {**new_trial(seed=30), "column_of_tomorrow": "kept"}
    pq.write_table(pa.Table.from_pylist([row], schema=newer), folder / "tomorrow-a0.parquet")
    count = len(open_store(store).rows("trials"))
    compact(store)
    assert (folder / "torn-a0.parquet").read_bytes() == b"PAR1 torn"
    assert pq.read_table(folder / "tomorrow-a0.parquet")["column_of_tomorrow"].to_pylist() == ["kept"]
    opened = open_store(store)
    assert len(opened.rows("trials")) == count
    assert [s.path.rpartition("/")[2] for s in opened.skipped] == ["torn-a0.parquet"]


def test_a_file_that_took_a_merged_name_since_is_read_and_kept(store, new_trial, write_file):
    """Killed after the swap: a name in the manifest may come back with other contents."""
    context = multiprocessing.get_context("spawn")
    killed = context.Process(target=_merge_until, args=(str(store), 4))
    killed.start()
    killed.join()
    manifest = json.loads((store / "study=demo" / "compact.json").read_text())
    name = sorted(manifest["tables"]["trials"]["replaces"])[0]
    path = write_file(
        store, "trials", [new_trial(seed=50), new_trial(seed=51)], stem=name.removesuffix(".parquet")
    )
    assert {50, 51} <= {r["seed"] for r in open_store(store).rows("trials")}
    write_file(store, "trials", [new_trial(seed=52)])
    compact(store)
    assert not path.exists()
    assert {50, 51, 52} <= {r["seed"] for r in open_store(store).rows("trials")}


def test_a_study_owns_trials_that_lie_in_another_studys_merged_file(store):
    rows = open_store(store).rows("trials")
    (store / "study=other").mkdir()
    wanted = sorted(r["trial_id"] for r in rows)[:2]
    (store / "study=other" / "study.json").write_text(json.dumps({"trial_ids": wanted}))
    compact(store, "demo")
    opened = open_store(store, "other")
    assert sorted(r["trial_id"] for r in opened.rows("trials")) == wanted
    assert {r["trial_id"] for r in opened.rows("epochs")} == set(wanted)


def test_two_merges_of_one_study_do_not_run_at_once(store):
    met = []

    def second(step):
        if "swap" in step:
            with pytest.raises(StoreError, match="another process is merging"):
                compact(store)
            met.append(step)

    compact(store, progress=second)
    assert met


def test_a_manifest_that_cannot_be_trusted_stops_the_reader(store):
    compact(store)
    manifest = store / "study=demo" / "compact.json"
    for text, reason in (
        ("{", "cannot read the manifest"),
        ("[]", "not a manifest"),
        ('{"version": 99}', "newer"),
    ):
        manifest.write_text(text)
        with pytest.raises(StoreError, match=reason):
            open_store(store)


def test_an_unknown_study_is_named(store):
    with pytest.raises(UnknownStudyError, match="it holds demo"):
        compact(store, "dmeo")


def test_the_recorder_counts_merged_trials_as_done(store):
    code = (
        "import sys; from study.store.reader import History; h = History(sys.argv[1]); "
        "print(len(h.done()), len(h.rows()), max(h.attempts().values()))"
    )

    def ask():
        return subprocess.run(
            [sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True
        ).stdout

    before = ask()
    compact(store)
    assert ask() == before
    assert before.split() == ["9", "9", "2"]
