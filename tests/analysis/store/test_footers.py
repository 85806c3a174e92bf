from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.schema import TRIALS, VERSION_KEY
from analysis.store import bulk, footers
from analysis.store.footers import VanishedError, by_layout
from analysis.store.store import open_store


def test_files_of_one_writer_share_a_layout_and_one_footer_is_parsed(
    tmp_path, new_trial, write_file, monkeypatch
):
    paths = [str(write_file(tmp_path, "trials", [new_trial(seed=seed)])) for seed in range(20)]
    parsed = []
    parse = footers._parsed
    monkeypatch.setattr(footers, "_parsed", lambda path: parsed.append(path) or parse(path))
    layouts, skipped = by_layout(paths)
    assert skipped == []
    ((layout, members),) = layouts.items()
    assert members == paths
    assert layout.columns == tuple(c.name for c in TRIALS.columns)
    assert layout.version == "1"
    assert len(parsed) == 1


def test_another_column_another_type_and_another_version_are_other_layouts(tmp_path):
    def written(name, schema, version=b"1"):
        path = tmp_path / f"{name}.parquet"
        table = pa.Table.from_pylist([{}], schema=schema.with_metadata({VERSION_KEY: version}))
        pq.write_table(table, path)
        return str(path)

    one = pa.schema([("a", pa.int64()), ("b", pa.string())])
    paths = [
        written("plain", one),
        written("again", one),
        written("more", one.append(pa.field("c", pa.int64()))),
        written("type", pa.schema([("a", pa.float64()), ("b", pa.string())])),
        written("newer", one, b"2"),
    ]
    layouts, _ = by_layout(paths)
    assert sorted(len(members) for members in layouts.values()) == [1, 1, 1, 2]
    assert {layout.version for layout in layouts} == {"1", "2"}


@pytest.mark.parametrize("text", ["ARROW:schema", "revstudy.schema_version", "finished_at"])
def test_a_value_that_looks_like_a_footer_deceives_no_reader(tmp_path, new_trial, write_file, text):
    rows = [new_trial(seed=0), new_trial(seed=1, error_message=text, model=text), new_trial(seed=2)]
    for row in rows:
        write_file(tmp_path, "trials", [row])
    store = open_store(tmp_path)
    assert store.skipped == ()
    assert {r["seed"]: r["error_message"] for r in store.rows("trials")} == {0: None, 1: text, 2: None}


def test_a_path_that_looks_like_a_pattern_is_read_as_it_is(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(study="a*", seed=0)], folder="a*")
    write(tmp_path, [new_trial(study="ab", seed=1)], folder="ab")
    store = open_store(tmp_path)
    assert store.skipped == ()
    assert sorted((r["study"], r["seed"]) for r in store.rows("trials")) == [("a*", 0), ("ab", 1)]
    assert [r["seed"] for r in open_store(tmp_path, "a*").rows("trials")] == [0]


def test_a_large_footer_is_read_whole(tmp_path):
    fields = [pa.field(f"column_{i}", pa.int64()) for i in range(2_000)]
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.Table.from_pylist([{}], schema=pa.schema(fields, metadata={VERSION_KEY: b"1"})), path)
    (layout,) = by_layout([str(path)])[0]
    assert len(layout.columns) == 2_000


def test_a_file_that_vanished_and_one_that_is_no_file(tmp_path):
    with pytest.raises(VanishedError):
        by_layout([str(tmp_path / "gone.parquet")])
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "long.parquet").write_bytes(b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1")
    layouts, skipped = by_layout([str(p) for p in sorted(tmp_path.iterdir())])
    assert layouts == {}
    reasons = {s.path.rpartition("/")[2]: s.reason for s in skipped}
    assert reasons["empty.parquet"] == "not a Parquet file"
    assert reasons["folder.parquet"] == "not a regular file"
    assert reasons["long.parquet"].startswith("torn")


def test_a_bad_file_spoils_its_own_batch_alone(tmp_path, new_trial, write_file, monkeypatch):
    monkeypatch.setattr(bulk, "BATCH", 4)
    paths = [write_file(tmp_path, "trials", [new_trial(seed=seed)]) for seed in range(12)]
    content = bytearray(paths[5].read_bytes())
    content[4:3000] = bytes(2996)
    paths[5].write_bytes(content)
    alone = []
    each = bulk.read_files

    def watched(storage, table, paths, **how):
        alone.extend(paths)
        return each(storage, table, paths, **how)

    monkeypatch.setattr(bulk, "read_files", watched)
    store = open_store(tmp_path)
    assert len(store.rows("trials")) == 11
    assert [s.path for s in store.skipped] == [str(paths[5])]
    assert len(alone) == 4
