"""Stores as nobody should find them: each drawn from a seed, with good trials among what is odd."""

import json
import os
import random
import socket

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.schema import TABLES, VERSION_KEY

GOOD = 3
"""Trials in every store that nothing is wrong with."""


def hostile_store(root, seed, *, new_trial, write):
    """Writes a store with good trials and up to six things that are odd.

    Returns:
        The names of the kinds of odd things in it.
    """
    chance = random.Random(seed)
    trials = [new_trial(seed=number, number=number, depth=14 + 12 * number) for number in range(GOOD)]
    write(root, trials)
    if chance.random() < 0.5:
        write(root, [new_trial(seed=number, study="other", number=number) for number in range(20, 22)])
    kinds = [chance.choice(sorted(ODD)) for _ in range(chance.randint(1, 6))]
    for number, kind in enumerate(kinds):
        table = chance.choice(list(TABLES))
        folder = root / "study=demo" / table
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{chance.getrandbits(64):016x}-a{chance.choice((0, 1, 7))}.parquet"
        row = new_trial(seed=100 + number, number=100 + number)
        ODD[kind](folder / name, chance, row, table)
    return kinds


def _table(row, table):
    types = TABLES[table].arrow
    if table != "trials":
        row = {"epoch": 1, "block": 0, "name": "blocks.0", **{n: v for n, v in row.items() if n != "block"}}
    return pa.Table.from_pylist([{name: row.get(name) for name in types.names}], schema=types)


def _put(path, content, metadata=None):
    metadata = {VERSION_KEY: b"1"} if metadata is None else metadata
    pq.write_table(content.replace_schema_metadata(metadata), path)


def _replaced(row, table, name, values):
    content = _table(row, table)
    place = content.column_names.index(name)
    return content.set_column(place, name, values)


def other_type(path, chance, row, table):
    name = chance.choice(TABLES[table].arrow.names)
    values = chance.choice(
        (
            pa.array(["deep"]),
            pa.array([b"\xff\xfe"]),
            pa.array([1.5]),
            pa.array([[1, 2]]),
            pa.array([True]),
            pa.array([2**62]),
            pa.array([None], pa.null()),
            pa.array(["x"]).dictionary_encode(),
            pa.array([10**13], pa.timestamp("s")),
        )
    )
    _put(path, _replaced(row, table, name, values))


def struct(path, chance, row, table):
    name = chance.choice(TABLES[table].arrow.names)
    _put(path, _replaced(row, table, name, pa.array([{"a": 1, "b": {"c": "x"}}])))


def twice(path, chance, row, table):
    content = _table(row, table)
    name = chance.choice(content.column_names)
    _put(path, content.append_column(name, content[name]))


def no_key(path, chance, row, table):
    name = chance.choice(("trial_id", "study", "attempt"))
    content = _table(row, table)
    _put(path, _replaced(row, table, name, pa.nulls(1, content.schema.field(name).type)))


def lacks(path, chance, row, table):
    content = _table(row, table)
    names = chance.sample(content.column_names, chance.randint(0, len(content.column_names) - 1))
    _put(path, content.drop_columns(names))


def version(path, chance, row, table):
    texts = (b"", b"-1", b"1" * 5001, b"\xd9\xa3", b"1.0", b"\x00\xff", b"0x1", b"one", b"99999")
    _put(path, _table(row, table), {VERSION_KEY: chance.choice(texts)})


def strange_values(path, chance, row, table):
    values = {
        "outcome": chance.choice((None, "banana", "", "ok\n", "\x00")),
        "attempt": chance.choice((-1, 2**63 - 1, 10**9)),
        "width": chance.choice((float("nan"), float("inf"), -1.0, 0.0)),
        "depth": chance.choice((None, -5, 2**62)),
        "strategy": chance.choice((None, "", "<b>", "store")),
        "family": chance.choice((None, "revnet", "</script>")),
        "compute_dtype": chance.choice((None, "", "fp32", "fp8")),
        "stream_dtype": chance.choice((None, "fp32")),
        "learning_rate": chance.choice((None, float("inf"), -0.0)),
        "seed": chance.choice((None, 2**62)),
        "memory_peak_bytes": chance.choice((None, 0, -1, 2**62)),
        "memory_activation_bytes": chance.choice((None, 0, -1, 2**62)),
        "step_time_s": chance.choice((None, 0.0, -1.0, float("nan"), 1e308)),
        "accuracy_val": chance.choice((None, float("nan"), float("inf"), -3.0, 1e308)),
        "accuracy_test": chance.choice((None, float("nan"), float("-inf"), 1e308)),
        "reconstruction_rel_error": chance.choice((None, 0.0, -1.0, float("inf"), 1e-320)),
        "gradient_rel_error": chance.choice((None, 0.0, float("nan"), float("inf"))),
        "concurrent_trials": chance.choice((None, 0, -1)),
        "workers": chance.choice((None, 0, 2, 2**40)),
        "epochs": chance.choice((None, 0, -1)),
        "model": chance.choice((None, "", "revnet", "x" * 5000)),
        "data": chance.choice((None, "", "cifar10", "../..")),
        "device": chance.choice((None, "")),
        "config_json": chance.choice((None, "", "[]", "{", "7", "[" * 5000, '{"a": ' * 3000)),
        "started_at": chance.choice((None, row["started_at"])),
        "finished_at": chance.choice((None, row["finished_at"])),
        "origin": chance.choice((None, "tpe", "grid")),
        "epoch": chance.choice((None, -1, 2**40)),
        "step": chance.choice((None, -1)),
    }
    some = {name: values[name] for name in chance.sample(sorted(values), 8)}
    _put(path, _table({**row, **some}, table))


def torn(path, chance, row, table):
    _put(path, _table(row, table))
    whole = path.read_bytes()
    path.write_bytes(whole[: chance.randrange(len(whole))])


def flipped(path, chance, row, table):
    _put(path, _table(row, table))
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 10, 200))):
        content[chance.randrange(4, len(content) - 4)] = chance.randrange(256)
    path.write_bytes(content)


def noise(path, chance, row, table):
    path.write_bytes(b"PAR1" + chance.randbytes(chance.choice((0, 8, 500))) + b"PAR1")


def footer_of_its_own(path, chance, row, table):
    inside = chance.randbytes(60)
    path.write_bytes(b"PAR1" + inside + len(inside).to_bytes(4, "little") + b"PAR1")


def no_rows(path, chance, row, table):
    _put(path, _table(row, table).slice(0, 0))


def no_columns(path, chance, row, table):
    _put(path, pa.table({"x": [1]}))


def foreign(path, chance, row, table):
    _put(path, _table(row, table), {})


def pipe(path, chance, row, table):
    os.mkfifo(path)


def folder(path, chance, row, table):
    path.mkdir()


def link_loop(path, chance, row, table):
    path.symlink_to(path)


def link_to_nothing(path, chance, row, table):
    path.symlink_to(path.with_name("nothing"))


def link_to_device(path, chance, row, table):
    path.symlink_to(chance.choice(("/dev/zero", "/dev/urandom", "/dev/null")))


def sock(path, chance, row, table):
    near = path.parent.parent / f"s{chance.getrandbits(20)}"
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(near))
        near.rename(path)
    except OSError:  # the path of a socket must be short
        path.touch()


def odd_study_file(path, chance, row, table):
    file = path.parents[1] / "study.json"
    if file.exists():
        return
    kind = chance.randrange(5)
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.mkdir(exist_ok=True)
    else:
        texts = ("[" * 20_000, json.dumps({"trial_ids": {"a": 1}, "planned": "many"}), "\x00")
        file.write_text(texts[kind - 2])


def odd_folder(path, chance, row, table):
    other = path.parents[2] / f"study={chance.choice(('loop', 'file', 'half'))}"
    if other.is_symlink() or other.exists():
        return
    if other.name.endswith("loop"):
        other.symlink_to(other)
    elif other.name.endswith("file"):
        other.write_text("no folder")
    else:
        other.mkdir()
        (other / "trials").write_text("no folder")


def unnamed_merged_file(path, chance, row, table):
    _put(path.with_name(f"compact-{chance.getrandbits(64):016x}.parquet"), _table(row, table))


ODD = {
    f.__name__: f
    for f in (
        *(other_type, struct, twice, no_key, lacks, version, strange_values, torn, flipped, noise),
        *(footer_of_its_own, no_rows, no_columns, foreign, pipe, folder, link_loop, link_to_nothing),
        *(link_to_device, sock, odd_study_file, odd_folder, unnamed_merged_file),
    )
}
"""The kinds of odd things, by name."""
