"""An odd file is cast or left out with its reason, the same by every verb, without a traceback or a hang.

The suite tries a few stores; ``REVSTUDY_STORES=200`` tries so many.
"""

import contextlib
import faulthandler
import io
import os
import random
import signal
import sys

import pytest

from analysis.schema import TABLES
from analysis.store.bulk import table_reader
from analysis.store.listing import list_files
from analysis.store.reading import read_files
from analysis.store.store import open_store
from analysis.store.trials import TrialTable, attempts_of
from tests.analysis.store.hostile import GOOD, ODD, hostile_store

STORES = int(os.environ.get("REVSTUDY_STORES", "5"))
LIMIT_S = 120
"""A verb that takes so long hangs, even on a machine that does much else."""
VERBS = (
    ("status",),
    ("query", "select count(*) as n from trials"),
    ("query", "best"),
    ("query", "select * from epochs limit 5"),
    ("claims",),
    ("compare", "demo", "demo"),
    ("report",),
    ("compact",),
    ("status",),
)


@contextlib.contextmanager
def time_limit(what):
    def hangs(*_):
        raise TimeoutError(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(LIMIT_S)
    faulthandler.dump_traceback_later(2 * LIMIT_S, exit=True)  # a wait in C hears no signal
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(monkeypatch, *words):
    """The exit code and the output of a verb; an error without an exit code of its own is a traceback."""
    from study.cli.main import main

    monkeypatch.setattr(sys, "argv", ["revstudy", *words])
    out, err = io.StringIO(), io.StringIO()
    with time_limit(words), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(STORES))
def test_every_verb_reads_what_can_be_read(tmp_path, monkeypatch, new_trial, write, seed):
    store = tmp_path / "s"
    kinds = hostile_store(store, seed, new_trial=new_trial, write=write)
    for verb in VERBS:
        code, out, err = run(monkeypatch, *verb, "--store", str(store))
        assert code in (0, 3), (kinds, verb, err)
        assert "Traceback" not in err + out, (kinds, verb)
        if code == 3:
            assert verb == ("compact",) and "nothing was" in err, (kinds, verb, err)
    with time_limit("reading"):
        opened = open_store(store)
        rows = {row["trial_id"]: row for row in opened.rows("trials")}
        table = TrialTable(store)
        asked = {row["trial_id"]: row for row in table.rows(("trial_id", "outcome")).to_pylist()}
        assert rows.keys() == asked.keys(), kinds
        assert {file.path for file in table.skipped} <= {file.path for file in opened.skipped}, kinds
        good = [new_trial(seed=n, number=n, depth=14 + 12 * n)["trial_id"] for n in range(GOOD)]
        assert rows.keys() >= set(good), kinds
        for trial in good:
            assert attempts_of(store, trial, ("trial_id",)).num_rows == 1


@pytest.mark.parametrize("kind", sorted(ODD))
def test_each_kind_is_read_the_same_alone_and_among_many(tmp_path, new_trial, write, kind):
    for number in range(3):
        root = tmp_path / f"{number}"
        write(root, [new_trial(seed=n, number=n) for n in range(6)])
        for table in TABLES:
            chance = random.Random(f"{kind}-{number}-{table}")
            path = root / "study=demo" / table / f"{chance.getrandbits(64):016x}-a0.parquet"
            ODD[kind](path, chance, new_trial(seed=9, number=9), table)
        with time_limit(kind):
            listing = list_files(root)
            for name, table in TABLES.items():
                together, left_out = table_reader(listing, table)()
                assert together.num_rows >= 6
                for column in TABLES[name].columns:
                    assert together.schema.field(column.name).type == column.type
                reasons = {file.path: file.reason for file in left_out}
                for path in (root / "study=demo" / name).iterdir():
                    if str(path) in listing.files[name]:
                        alone, bad = read_files(listing.storage, table, [str(path)])
                        assert [f.reason for f in bad] == [reasons[p] for p in [str(path)] if p in reasons]
                        assert bad or alone.num_rows >= 0


def test_what_is_left_out_is_said_with_its_reason(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(seed=n) for n in range(5)])
    expected = {
        "pipe": "not a regular file",
        "folder": "it is a folder",
        "link_loop": "a link that leads nowhere",
        "twice": "stands in it twice",
        "no_key": "a row has no",
        "version": "its schema version",
        "foreign": "no schema version",
    }
    for kind in expected:
        path = tmp_path / "study=demo" / "trials" / f"{kind}-a0.parquet"
        ODD[kind](path, random.Random(3), new_trial(seed=9), "trials")
    found = {
        s.path.rpartition("/")[2].removesuffix("-a0.parquet"): s.reason for s in open_store(tmp_path).skipped
    }
    assert found.keys() == expected.keys()
    for kind, words in expected.items():
        assert words in found[kind]
    assert len(open_store(tmp_path).rows("trials")) == 5
