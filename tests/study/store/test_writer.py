import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.schema import SCHEMA_VERSION, TRIALS, VERSION_KEY
from analysis.store.compact import compact
from study.errors import StoreError
from study.store.reader import History, read_rows
from study.store.rows import TrialResult, full_row, lost_result, settings_columns
from study.store.writer import check_writable, write_result, write_study


def done_ids(store):
    return History(store).done().keys()


def attempts(store):
    return History(store).attempts()


@pytest.fixture
def result(make_trial):
    """Rows as a trial leaves them, with any outcome, attempt and study."""

    def make(outcome="ok", attempt=0, trial_id="0" * 16, study="s"):
        key = {"trial_id": trial_id, "study": study, "attempt": attempt}
        row = {**settings_columns(make_trial(), attempt), **key, "outcome": outcome}
        return TrialResult(
            trial=full_row("trials", row),
            epochs=[full_row("epochs", {**key, "epoch": 1, "loss_train": 0.5})],
            blocks=[full_row("blocks", {**key, "epoch": 1, "block": 0})],
        )

    return make


def test_rows_come_back_with_the_schema_and_its_version(tmp_path, result):
    write_result(tmp_path, result())
    for table in ("trials", "epochs", "blocks"):
        file = tmp_path / "study=s" / table / f"{'0' * 16}-a0.parquet"
        found = pq.ParquetFile(file).schema_arrow
        assert found.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
        assert pq.ParquetFile(file).read().num_rows == 1
    assert read_rows(tmp_path)["0" * 16] == result().trial
    assert not [f for f in tmp_path.rglob(".*") if f.is_file()]


def test_no_rows_no_file(tmp_path, result):
    write_result(tmp_path, TrialResult(trial=result().trial))
    assert [f.parent.name for f in tmp_path.rglob("*.parquet")] == ["trials"]


def test_a_row_must_fit_the_schema():
    with pytest.raises(KeyError, match="the table trials has no column speed"):
        full_row("trials", {"speed": 1})


@pytest.mark.parametrize(
    ("outcome", "done"),
    [("ok", 1), ("diverged", 1), ("oom", 1), ("pruned", 1), ("timeout", 0), ("failed", 0)],
)
def test_what_is_done(tmp_path, result, outcome, done):
    write_result(tmp_path, result(outcome))
    assert len(done_ids(tmp_path)) == done


def test_done_in_any_study_of_the_store(tmp_path, result):
    write_result(tmp_path, result(trial_id="a" * 16, study="one"))
    write_result(tmp_path, result(trial_id="b" * 16, study="two"))
    assert done_ids(tmp_path) == {"a" * 16, "b" * 16}


def test_a_retry_leaves_the_failed_attempt_and_counts_instead_of_it(tmp_path, result):
    write_result(tmp_path, result("failed"))
    assert attempts(tmp_path) == {"0" * 16: 1}
    write_result(tmp_path, result("ok", attempt=1))
    write_result(tmp_path, result("failed", attempt=2))
    assert attempts(tmp_path) == {"0" * 16: 3}
    assert len(list(tmp_path.rglob("trials/*.parquet"))) == 3
    assert read_rows(tmp_path)["0" * 16]["attempt"] == 1


def test_no_store_is_an_empty_store(tmp_path):
    assert done_ids(tmp_path / "none") == set()
    assert attempts(tmp_path / "none") == {}
    assert not (tmp_path / "none").exists()


def test_torn_and_foreign_files_count_for_nothing(tmp_path, result):
    write_result(tmp_path, result())
    folder = tmp_path / "study=s" / "trials"
    whole = (folder / f"{'0' * 16}-a0.parquet").read_bytes()
    (folder / "torn-a0.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "empty-a0.parquet").write_bytes(b"")
    pq.write_table(pa.table({"trial_id": ["x"], "outcome": ["ok"]}), folder / "foreign-a0.parquet")
    (folder / ".hidden-a0.parquet").write_bytes(whole)
    assert done_ids(tmp_path) == {"0" * 16}


def test_newer_schema_is_refused(tmp_path):
    folder = tmp_path / "study=s" / "trials"
    folder.mkdir(parents=True)
    table = pa.table({"trial_id": ["x"], "outcome": ["ok"]})
    table = table.replace_schema_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1)})
    pq.write_table(table, folder / "x-a0.parquet")
    with pytest.raises(StoreError, match=r"was written under schema version 2.*update revstudy") as caught:
        done_ids(tmp_path)
    assert caught.value.exit_code == 3


def test_a_store_that_cannot_be_written(tmp_path, result):
    file = tmp_path / "file"
    file.write_text("here")
    for action in (
        lambda: check_writable(file),
        lambda: write_result(file, result()),
        lambda: done_ids(file),
    ):
        with pytest.raises(StoreError, match=r"another folder with --store|must be a folder") as caught:
            action()
        assert caught.value.exit_code == 3
        assert repr(str(file)) in str(caught.value)
    assert file.read_text() == "here"


def test_checking_leaves_an_empty_folder(tmp_path):
    check_writable(tmp_path / "new" / "store")
    assert list((tmp_path / "new" / "store").iterdir()) == []


def test_study_file_lists_its_trials(tmp_path):
    write_study(tmp_path, {"name": "s", "seeds": [0]}, ["b", "a"])
    content = json.loads((tmp_path / "study=s" / "study.json").read_text())
    assert content == {"name": "s", "seeds": [0], "trial_ids": ["a", "b"]}


def test_uri_of_a_store(tmp_path, result):
    write_result(f"file://{tmp_path}/store", result())
    assert done_ids(tmp_path / "store") == {"0" * 16}


def test_the_row_of_a_lost_trial(tmp_path, make_trial):
    trial = make_trial()
    started = datetime.now(UTC) - timedelta(seconds=5)
    lost = lost_result(trial, ConnectionError("the node is gone"), attempt=2, started_at=started)
    assert list(lost.trial) == [column.name for column in TRIALS.columns]
    assert (lost.trial["outcome"], lost.trial["error_class"]) == ("failed", "ConnectionError")
    assert (lost.trial["family"], lost.trial["depth"], lost.trial["strategy"]) == ("revnet", 26, "reverse")
    assert lost.trial["wall_s"] == pytest.approx(5, abs=2)
    write_result(tmp_path, lost)
    assert attempts(tmp_path) == {trial.trial_id: 3}
    assert done_ids(tmp_path) == set()


def test_no_row_is_missed_while_files_are_merged(tmp_path, result):
    ids = {f"{number:016x}" for number in range(120)}
    for trial_id in ids:
        write_result(tmp_path, result(trial_id=trial_id))
    with ThreadPoolExecutor(max_workers=1) as other:
        merged = other.submit(compact, tmp_path)
        looks = 0
        while not merged.done() or looks < 2:
            assert done_ids(tmp_path) == ids
            assert History(tmp_path).done(ids).keys() == ids
            looks += 1
        assert merged.result()
    assert len(list((tmp_path / "study=s" / "trials").glob("*.parquet"))) == 1
