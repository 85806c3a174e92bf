"""A store that grew holds what one that is opened anew holds."""

import json

import pytest

from analysis.schema import TABLES
from analysis.store.compact import compact
from analysis.store.listing import list_files
from analysis.store.store import Store, open_store


def _same(grown: Store, path) -> None:
    fresh = open_store(path, grown.study)
    assert {name: grown.rows(name) for name in TABLES} == {name: fresh.rows(name) for name in TABLES}
    assert {f.path for f in grown.skipped} == {f.path for f in fresh.skipped}


@pytest.mark.parametrize("read", [(), ("trials",), tuple(TABLES)])
def test_new_trials_and_attempts_and_curves_that_came_before_their_row(
    tmp_path, new_trial, write, write_file, read
):
    failed = new_trial(seed=7, outcome="failed", attempt=0)
    write(tmp_path, [new_trial(), failed])
    late = new_trial(seed=5)
    write_file(
        tmp_path, "epochs", [{"trial_id": late["trial_id"], "study": "demo", "attempt": 0, "epoch": 1}]
    )
    store = open_store(tmp_path)
    for name in read:
        store.table(name)
    write_file(tmp_path, "trials", [late])
    store = store.grown(list_files(tmp_path))
    _same(store, tmp_path)
    assert len(store.rows_of("epochs", [late["trial_id"]])) == 1
    write(tmp_path, [{**failed, "attempt": 1, "outcome": "ok"}])
    store = store.grown(list_files(tmp_path))
    write(tmp_path, [new_trial(seed=9)])
    store = store.grown(list_files(tmp_path))  # twice, without a look in between
    _same(store, tmp_path)
    assert len(store.rows("trials")) == 4


def test_rows_that_are_merged_and_curves_that_are_not(tmp_path, new_trial, write):
    """One trial has curves and two have rows, so a merge takes the rows alone."""
    trials = [new_trial(), new_trial(seed=1)]
    write(tmp_path, trials)
    for table in ("epochs", "blocks"):
        (tmp_path / f"study=demo/{table}/{trials[1]['trial_id']}-a0.parquet").unlink()
    compact(tmp_path)
    store = open_store(tmp_path)
    for name in TABLES:
        store.table(name)
    write(tmp_path, [new_trial(seed=2)])
    _same(store.grown(list_files(tmp_path)), tmp_path)


def test_rows_that_were_read_are_not_read_again(tmp_path, new_trial, write):
    write(tmp_path, [new_trial()])
    store = open_store(tmp_path)
    store.table("trials")
    write(tmp_path, [new_trial(seed=1)])
    listing = list_files(tmp_path)
    for file in tmp_path.glob(f"study=demo/trials/{new_trial()['trial_id']}*"):
        file.write_bytes(b"no longer Parquet")
    assert len(store.grown(listing).rows("trials")) == 2


def test_a_merge_and_a_torn_file(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(), new_trial(seed=1)])
    (tmp_path / "study=demo/trials/torn-a0.parquet").write_bytes(b"PAR1")
    store = open_store(tmp_path)
    assert len(store.skipped) == 1
    write(tmp_path, [new_trial(seed=2)])
    store = store.grown(list_files(tmp_path))
    _same(store, tmp_path)
    compact(tmp_path)
    store = store.grown(list_files(tmp_path))
    _same(store, tmp_path)
    write(tmp_path, [new_trial(seed=3)])
    _same(store.grown(list_files(tmp_path)), tmp_path)


def test_a_study_that_lists_a_trial_of_another_later(tmp_path, new_trial, write):
    other = new_trial(study="other", seed=3)
    write(tmp_path, [new_trial(), other])
    store = open_store(tmp_path, "demo")
    assert len(store.rows("trials")) == 1
    (tmp_path / "study=demo/study.json").write_text(json.dumps({"trial_ids": [other["trial_id"]]}))
    store = store.grown(list_files(tmp_path))
    assert len(store.rows("trials")) == 2
    _same(store, tmp_path)
