"""Any sequence of write, crash, merge, damage and read keeps every row exactly once.

A crash stops a process before one of its file operations: `CrashingStorage` counts them at the seam through
which all of them go. The suite tries a few sequences; ``REVSTUDY_SEQUENCES=2000`` tries so many.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as some
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from pyarrow import fs

from analysis.errors import StoreError
from analysis.schema import TABLES
from analysis.store.bulk import table_reader
from analysis.store.compact import compact
from analysis.store.listing import is_merged, list_files
from analysis.store.storage import Storage
from analysis.store.trials import TrialTable, attempts_of

SEQUENCES = int(os.environ.get("REVSTUDY_SEQUENCES", "60"))
IDS = tuple(f"{number:016x}" for number in (1, 2, 3 << 60, 4 << 60, 15 << 60))
NAMES = tuple(TABLES)


class Crash(BaseException):
    """The process is dead: nothing may catch this and go on."""


class CrashingStorage(Storage):
    """A folder whose process dies before one of its operations, and does nothing after that.

    `operations` is how many it does before that, and `deletions` how many deletions.
    """

    def __init__(self, root, operations=None, *, deletions=None):
        super().__init__(fs.LocalFileSystem(), str(root))
        self.left, self.of = operations, ""
        if deletions is not None:
            self.left, self.of = deletions, "delete"

    def step(self, operation, path):
        if self.left is not None and operation.startswith(self.of):
            if self.left <= 0:
                raise Crash(operation)
            self.left -= 1


def rows_of(table, trial, attempt):
    key = {"trial_id": trial, "study": "demo", "attempt": attempt}
    if table == "trials":
        return [{**key, "outcome": "ok" if attempt % 2 else "failed", "depth": attempt}]
    if table == "epochs":
        return [{**key, "epoch": epoch, "step": attempt} for epoch in (1, 2)]
    return [{**key, "epoch": 1, "block": block, "name": f"b{block}"} for block in (0, 1, 2)]


def content_of(table, trial, attempt):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows_of(table, trial, attempt), schema=TABLES[table].arrow), sink)
    return sink.getvalue().to_pybytes()


def as_keys(rows):
    kept = ("trial_id", "attempt", "epoch", "block", "depth", "step")
    return Counter(tuple(row.get(name) for name in kept) for row in rows)


class StoreMachine(RuleBasedStateMachine):
    """Writes, merges and breaks a store, and knows what must be in it."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="sequence-"))
        self.expected = {name: Counter() for name in NAMES}
        self.written = set()
        self.damaged = False

    def teardown(self):
        try:
            self.check()
        finally:
            shutil.rmtree(self.root)

    def check(self):
        listing = list_files(self.root)
        for name, table in TABLES.items():
            rows, skipped = table_reader(listing, table)()
            assert as_keys(rows.to_pylist()) == self.expected[name], name
            assert self.damaged or skipped == [], skipped
        columns = ("trial_id", "attempt", "depth")
        attempts = TrialTable(self.root).attempts(columns)
        assert as_keys(attempts.to_pylist()) == self.expected["trials"]
        for trial in IDS:
            own = as_keys(attempts_of(self.root, trial, columns).to_pylist())
            assert own == Counter({key: n for key, n in self.expected["trials"].items() if key[0] == trial})

    @rule(
        trial=some.sampled_from(IDS),
        attempt=some.integers(0, 3),
        crash=some.one_of(some.none(), some.integers(0, 15)),
    )
    def write(self, trial, attempt, crash):
        """A trial ends: its curves, its probes, and then its row, as a run writes them."""
        if (trial, attempt) in self.written:
            return
        self.written.add((trial, attempt))
        storage = CrashingStorage(self.root, crash)
        with contextlib.suppress(Crash):
            for name in ("epochs", "blocks", "trials"):
                path = storage.path(f"study=demo/{name}/{trial}-a{attempt}.parquet")
                storage.write(path, content_of(name, trial, attempt))
        for name in NAMES:  # a write that was cut off is there or not; a row that is there stays
            if (self.root / "study=demo" / name / f"{trial}-a{attempt}.parquet").exists():
                self.expected[name] += as_keys(rows_of(name, trial, attempt))

    @precondition(lambda self: self.written)
    @rule(crash=some.one_of(some.none(), some.integers(0, 60)))
    def merge(self, crash):
        """A merge that ends, or is cut off before any of its file operations."""
        (self.root / "study=demo").mkdir(exist_ok=True)
        with contextlib.suppress(Crash):
            compact(CrashingStorage(self.root, crash))
            self.damaged = False
        self.check()

    @precondition(lambda self: self.written)
    @rule(how=some.sampled_from(("torn", "gone", "zeros")), table=some.sampled_from(NAMES))
    def damage(self, how, table):
        """A merged file is lost while all that it replaces is still there."""
        manifest = self.root / "study=demo" / "compact.json"
        entry = json.loads(manifest.read_text())["tables"].get(table) if manifest.exists() else None
        folder = self.root / "study=demo" / table
        if not entry or not entry["replaces"]:
            return
        if not all((folder / name).exists() for name in entry["replaces"]):
            return
        path = folder / entry["file"]
        if not path.exists():
            return
        if how == "gone":
            path.unlink()
        else:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if how == "torn" else bytes(len(whole)))
        self.damaged = True
        self.check()


StoreMachine.TestCase.settings = settings(
    max_examples=SEQUENCES,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
test_any_sequence_keeps_every_row_once = pytest.mark.timeout(3600)(StoreMachine.TestCase)


def machine_at(root, trials):
    """A store in which each of these trials has ended once."""
    machine = StoreMachine()
    shutil.rmtree(machine.root)
    machine.root = root
    for trial in trials:
        StoreMachine.write(machine, trial, 0, None)
    return machine


def test_a_merge_may_be_cut_off_before_each_of_its_operations(tmp_path):
    """Every crash point of one merge, and of the merge that follows an earlier one."""
    for earlier in (False, True):
        machine = machine_at(tmp_path / f"{earlier}", IDS[:2])
        if earlier:
            compact(machine.root)
            for trial in IDS[2:4]:
                StoreMachine.write(machine, trial, 0, None)
        place, start = 0, machine.root
        while True:
            root = machine.root = tmp_path / f"{earlier}-{place}"
            shutil.copytree(start, root)
            ended = False
            with contextlib.suppress(Crash):
                compact(CrashingStorage(root, place))
                ended = True
            machine.check()
            compact(root)
            machine.check()
            for name in NAMES:
                assert [is_merged(path.name) for path in (root / "study=demo" / name).iterdir()] == [True]
            if ended:
                break
            place += 1
        assert place > 25


@pytest.mark.parametrize("how", ["torn", "gone"])
def test_a_merged_file_that_is_lost_with_some_of_its_originals_is_said_and_nothing_goes(tmp_path, how):
    machine = machine_at(tmp_path / "store", IDS[:4])
    folder = machine.root / "study=demo" / "trials"
    with pytest.raises(Crash):
        compact(CrashingStorage(machine.root, deletions=2))
    machine.check()
    (merged,) = folder.glob("compact-*.parquet")
    whole = merged.read_bytes()
    merged.unlink() if how == "gone" else merged.write_bytes(whole[:-100])
    left = sorted(path.name for path in folder.iterdir())
    with pytest.raises(StoreError, match="missing or damaged") as caught:
        compact(machine.root)
    assert caught.value.exit_code == 3
    assert sorted(path.name for path in folder.iterdir()) == left
    rows, skipped = table_reader(list_files(machine.root), TABLES["trials"])()
    assert 0 < rows.num_rows < 4
    assert [file.path for file in skipped] == [str(merged)]
    merged.write_bytes(whole)
    compact(machine.root)
    machine.check()


def test_a_store_that_lost_its_manifest_keeps_its_rows(tmp_path):
    """The merged file is then the only one that holds them: it is taken into a new manifest."""
    machine = machine_at(tmp_path / "store", IDS[:3])
    compact(machine.root)
    StoreMachine.write(machine, IDS[3], 0, None)
    (machine.root / "study=demo" / "compact.json").unlink()
    compact(machine.root)
    machine.check()
