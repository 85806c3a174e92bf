"""The GPU suite runs on a CPU at its smallest sizes, goes on where it stopped, and gives rows of a store."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from analysis.claims.judge import judge
from analysis.store.store import open_store
from benchmarks.gpu import cifar, common, conformance, memory, speed, to_store

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--tiny", "--device", "cpu"]
LITTLE = [
    *("--device", "cpu", "--data", "digits", "--models", "revnet38", "--twins", "--depth", "14"),
    *("--width", "0.25", "--seeds", "1", "--epochs", "2", "--examples", "64", "--test-examples", "32"),
    *("--batch", "32", "--processes", "1"),
]


def test_conformance_runs_every_case_but_the_compiled_ones_and_only_once(tmp_path, capsys):
    words = ["additive, fp", "exact", "dropout", "running", "flat", "captured"]
    arguments = [*TINY, "--out", str(tmp_path), "--only", *words]
    assert conformance.main(arguments) == 0
    lines = common.Lines(tmp_path / "conformance.jsonl").read()
    assert {line["outcome"] for line in lines if "captured" not in line["case"]} == {"holds"}
    assert [line["outcome"] for line in lines if "captured" in line["case"]] == ["not applicable"]
    exact = [line["figures"] for line in lines if line["case"].startswith("exact")]
    assert len(exact) == 8
    assert all(figures == {"gradient": 0.0, "rebuilt": 0.0} for figures in exact)
    assert conformance.main(arguments) == 0
    assert len(common.Lines(tmp_path / "conformance.jsonl").read()) == len(lines)


def test_a_case_that_fails_or_raises_is_broken_and_the_exit_code_says_so(tmp_path, monkeypatch):
    def raises(device, tiny):
        raise RuntimeError("no such kernel")

    broken = {"off": lambda device, tiny: ({"gradient": 0.5}, 0.1), "raises": raises}
    monkeypatch.setattr(conformance, "cases", lambda: broken)
    assert conformance.main([*TINY, "--out", str(tmp_path)]) == 1
    lines = common.Lines(tmp_path / "conformance.jsonl").read()
    assert [line["outcome"] for line in lines] == ["broken", "broken"]
    assert lines[1]["detail"] == "RuntimeError: no such kernel"


def test_a_torn_line_is_left_out_and_what_follows_stays_whole(tmp_path):
    lines = common.Lines(tmp_path / "x.jsonl")
    lines.add({"a": 1})
    with lines.path.open("a") as file:
        file.write('{"a": 2')
    lines.add({"a": 3})
    assert lines.read() == [{"a": 1}, {"a": 3}]


def test_memory_and_speed_give_trials_and_lines_that_become_rows(tmp_path):
    out = str(tmp_path / "out")
    assert memory.main([*TINY, "--out", out]) == 0
    assert speed.main([*TINY, "--out", out, "--ways", "eager"]) == 0
    assert {line["outcome"] for line in common.Lines(tmp_path / "out" / "speed.jsonl").read()} == {"ok"}
    arguments = [out, "--store", str(tmp_path / "store"), "--tables", str(tmp_path / "tables")]
    assert to_store.main(arguments) == 0
    assert (tmp_path / "tables" / "gpu-speed.parquet").exists()
    store = open_store(tmp_path / "store")
    rows = store.rows("trials")
    assert {row["study"] for row in rows} == {"gpu-memory", "gpu-speed"}
    assert {row["outcome"] for row in rows} == {"ok"}
    assert all(
        row["memory_peak_bytes"] == pytest.approx(row["memory_predicted_bytes"], rel=0.03) for row in rows
    )
    assert {v.number: v.verdict for v in judge(store)}[2] == "holds"
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.parquet"))
    assert to_store.main(arguments) == 0
    assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.parquet"))


def test_a_training_that_was_cut_off_goes_on_to_the_same_result(tmp_path, monkeypatch):
    def trained(folder, stop_after=None):
        chosen = _chosen(tmp_path / folder)
        if stop_after:
            # The time is up right after the first epoch has been saved.
            real = cifar.train_trial

            def cut(trial, **given):
                def save(values, epoch):
                    given["save"](values, epoch)
                    raise KeyboardInterrupt

                return real(trial, **{**given, "save": save})

            monkeypatch.setattr(cifar, "train_trial", cut)
            with pytest.raises(KeyboardInterrupt):
                cifar.work(chosen)
            monkeypatch.undo()
            assert list((tmp_path / folder / "state").glob("*.pt"))
            for claim in (tmp_path / folder / "claims").iterdir():
                claim.unlink()
        cifar.work(chosen)
        (row,) = open_store(tmp_path / folder / "store").rows("trials")
        assert not list((tmp_path / folder / "state").iterdir())
        return row

    whole, resumed = trained("whole"), trained("cut", stop_after=1)
    assert (whole["outcome"], whole["epochs_done"], resumed["epochs_done"]) == ("ok", 2, 2)
    for column in ("accuracy_test", "loss_test", "loss_train", "reconstruction_rel_error"):
        assert whole[column] == resumed[column]


def _chosen(out):
    """The arguments of a process of `cifar`, as its own parser reads them."""
    found = {}
    original = cifar.work
    cifar.work = lambda chosen: found.update(vars(chosen))
    try:
        cifar.main([*LITTLE, "--out", str(out), "--until", str(time.time() + 300)])
    finally:
        cifar.work = original
    for folder in ("state", "claims", "store"):
        (out / folder).mkdir(parents=True)
    return type("Chosen", (), found)


def write_images(folder, count=40):
    """Noise in the layout of Hugging Face, as CIFAR-10 comes."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for split in ("train", "test"):
        rows = []
        for i in range(count):
            png = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(png, "PNG")
            rows.append({"img": {"bytes": png.getvalue(), "path": None}, "label": i % 2})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


@pytest.mark.timeout(900)
def test_the_suite_needs_neither_ray_nor_pydantic_nor_optuna_nor_duckdb(tmp_path):
    write_images(tmp_path / "cifar10")
    for name in ("state", "claims", "store"):
        (tmp_path / "out" / name).mkdir(parents=True)
    tiny = [*TINY, "--out", str(tmp_path / "out")]
    training = [
        *("--out", str(tmp_path / "out"), "--device", "cpu", "--data", "cifar10", "--models", "revnet38"),
        *("--twins", "--depth", "14", "--width", "0.25", "--seeds", "1", "--epochs", "1", "--batch", "16"),
        *("--examples", "32", "--test-examples", "16", "--until", str(time.time() + 3600)),
    ]
    program = f"""
import sys
for name in ('ray', 'pydantic', 'optuna', 'duckdb', 'sklearn', 'plotly', 'typer', 'yaml', 'rich', 'jinja2'):
    sys.modules[name] = None  # as if it were not installed
from benchmarks.gpu import cifar, conformance, memory, speed, to_store
codes = [
    memory.main({tiny!r}),
    speed.main({[*tiny, "--ways", "eager"]!r}),
    conformance.main({[*tiny, "--only", "additive, fp32", "dropout"]!r}),
    cifar.main({training!r}),
    to_store.main({[str(tmp_path / "out"), "--store", str(tmp_path / "store"), "--tables", str(tmp_path)]!r}),
]
sys.exit(repr(codes) if any(codes) else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"REVSTUDY_DATA": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "All trials are done." in done.stdout
    rows = open_store(tmp_path / "store").rows("trials")
    assert {row["study"] for row in rows} == {"gpu-memory", "gpu-speed", "gpu-cifar"}
    (trained,) = (row for row in rows if row["study"] == "gpu-cifar")
    assert (trained["outcome"], trained["data"], trained["examples_train"]) == ("ok", "cifar10", 32)


def test_lines_are_json(tmp_path):
    lines = common.Lines(tmp_path / "y.jsonl")
    lines.add({"value": 1.5})
    assert json.loads(lines.path.read_text()) == {"value": 1.5}
