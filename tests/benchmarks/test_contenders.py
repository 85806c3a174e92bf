"""The benchmarks compare networks that compute the same, and measure what they say."""

import importlib.util

import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import contenders, largest, memory, scaling, speed
from benchmarks.subjects import SUBJECTS
from revmodels import measure

PEERS = [name for name in ("memcnn", "revtorch", "revlib") if importlib.util.find_spec(name)]
NAMES = ["store", "reverse", "checkpoint", *PEERS]
SMALL = SUBJECTS["small"]


def test_every_contender_computes_the_stored_twin_s_gradients():
    errors = contenders.check(SMALL, NAMES, 4)
    assert set(errors) == set(NAMES)
    assert errors["store"] == 0
    assert all(0 < errors[name] < 1e-10 for name in NAMES if name not in ("store", "checkpoint"))


@pytest.mark.timeout(900)
def test_compiled_contenders_are_checked_like_the_others(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(contenders, "COMPILER", "aot_eager")  # inductor takes a minute for the same graphs
    errors = contenders.check(SMALL, ["store", "compile", "compile_reverse"], 2)
    assert all(errors[name] < 1e-10 for name in ("compile", "compile_reverse"))
    torch._dynamo.reset()


def test_a_contender_that_computes_something_else_ends_the_benchmark(monkeypatch):
    def wrong(name, network, budget):
        made = contend(name, network, budget)
        if name == "reverse":
            made.register_forward_hook(lambda module, inputs, logits: 1.001 * logits)
        return made

    contend = contenders.contend
    monkeypatch.setattr(contenders, "contend", wrong)
    with pytest.raises(SystemExit, match="must equal the stored twin's to 1e-08; off: reverse"):
        contenders.check(SMALL, ["store", "reverse"], 4)


def test_the_tracker_of_the_benchmark_agrees_with_the_package_s():
    batch = SMALL.data(4)
    for name in ("store", "reverse"):
        (entry,) = contenders.enter(SMALL, [name])
        found, _ = memory.activation_bytes(entry, batch)
        (entry,) = contenders.enter(SMALL, [name])
        right = measure.peak_memory(entry.model, batch).activation_bytes
        # The benchmark hands each contender a copy of the batch, which counts for it.
        assert abs(found - right) <= batch[0].nbytes


def test_a_storage_that_is_emptied_is_not_counted():
    tracker = memory.Tracker()
    with tracker:
        x = torch.empty(1000)
        x.untyped_storage().resize_(0)
        y = torch.empty(10)
    assert tracker.held["activation"] == 40
    assert tracker.peak_activation == 4000
    assert len(y) == 10


def test_times_are_written_and_few_rounds_say_so(tmp_path, capsys):
    arguments = ["--subjects", "small", "--contenders", "reverse", "store", "--rounds", "2"]
    assert speed.main([*arguments, "--output", str(tmp_path / "speed.parquet")]) == 0
    rows = pq.read_table(tmp_path / "speed.parquet").to_pylist()
    seen = {(row["contender"], row["round"]) for row in rows}
    assert seen == {(contender, i) for contender in ("store", "reverse") for i in (0, 1)}
    assert len(rows) == 4
    assert all(row["time_s"] > 0 and row["torch_version"] and row["device"] for row in rows)
    assert "a look, not a measurement" in capsys.readouterr().out


def test_a_ratio_is_taken_within_rounds():
    times = [{"reverse": 2.0, "store": 1.0}, {"reverse": 20.0, "store": 10.0}, {"reverse": 3.0, "store": 1.0}]
    assert speed.ratio(times, "store") == (2.0, 2.0, 3.0)


@pytest.mark.parametrize("budget", [1600, 5000, 100_000, 10_000_000])
def test_the_last_that_fits_is_found_in_few_predictions(budget):
    calls = []

    def needs(n):
        calls.append(n)
        return 1000 + 37 * n + n % 3

    found = largest.last_that_fits(needs, budget, 14, 12)
    assert len(calls) <= 6
    assert needs(found) <= budget < needs(found + 12)
    assert largest.last_that_fits(needs, 5, 14, 12) is None


def test_the_deepest_reversible_network_is_deeper_and_its_step_fits():
    around = 16, 0.5, 16  # batch, width, pixels along a side
    budget = largest.needed_bytes("resnet110", 26, "store", *around)
    resnet = largest.deepest("resnet110", "store", budget, *around)
    reverse = largest.deepest("revnet110", "reverse", budget, *around)
    assert resnet == 26
    assert reverse > resnet
    found = largest.real_step(reverse, *around)
    assert 0 < found["measured_bytes"] <= budget
    assert found["gradient_norm"] > 0


def test_two_workers_compute_the_mean_of_their_shares(tmp_path):
    found = scaling.measure("small", 2, 4, 2)
    assert found["gradient_rel_error"] < 1e-10
    assert found["examples_per_s"] > 0
    assert 0 <= found["overlap"] <= 1
    assert found["reduce_time_s"] > 0
    assert scaling.overlap(step=1.1, alone=1.0, reduce=0.4) == pytest.approx(0.75)
