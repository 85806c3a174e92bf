import copy
import io
import math
import re
import subprocess
import sys
import time

import pytest
import torch

from analysis.schema import BLOCKS, EPOCHS, TRIALS
from revmodels import create_model, measure
from revmodels.coupling.linear import find_coupling
from study.plan.cost import trial_cost
from study.plan.expand import make_plan
from study.spec.load import load_study
from study.train.build import build_model
from study.train.nonfinite import first_bad_block
from study.train.trial import train_trial
from tests.study.trials import trial_from_dict

SAME_RUN = [c.name for c in EPOCHS.columns if c.name not in ("epoch_s", "examples_per_s", "attempt")]


def numbers(result):
    """What a trial computed, without times."""
    return [{name: row[name] for name in SAME_RUN} for row in result.epochs]


def outcome(result):
    return result.trial["outcome"], result.trial["error_class"]


def test_rows_have_the_columns_of_the_schema_and_the_values_of_the_trial(make_trial):
    trial = make_trial(probe={"every": 1})
    result = train_trial(trial, attempt=3)
    assert list(result.trial) == [c.name for c in TRIALS.columns]
    assert all(list(row) == [c.name for c in EPOCHS.columns] for row in result.epochs)
    assert all(list(row) == [c.name for c in BLOCKS.columns] for row in result.blocks)
    row = result.trial
    assert outcome(result) == ("ok", None), row["error_message"]
    assert (row["trial_id"], row["study"], row["attempt"]) == (trial.trial_id, "test", 3)
    assert (row["family"], row["block"], row["depth"], row["width"]) == ("revnet", "basic", 26, 0.25)
    assert (row["examples_train"], row["num_classes"], row["batch_size"]) == (256, 10, 64)
    assert (row["epochs_done"], row["steps_done"], row["concurrent_trials"]) == (2, 8, 1)
    assert (row["matmul"], row["memory_source"]) == ("not_applicable", "tracker")
    assert [r["epoch"] for r in result.epochs] == [1, 2]
    assert [r["step"] for r in result.epochs] == [4, 8]
    assert {r["epoch"] for r in result.blocks} == {0, 1, 2}
    assert row["loss_val"] == result.epochs[-1]["loss_val"]
    assert row["accuracy_test"] is not None
    assert row["memory_parameter_bytes"] == 4 * row["parameters"]
    assert row["memory_peak_bytes"] > row["memory_activation_bytes"] > 0
    assert 0 < row["step_time_s"] < row["train_s"] < row["wall_s"]
    assert row["examples_per_s"] == pytest.approx(64 / row["step_time_s"])
    assert row["started_at"] < row["finished_at"]


def test_unknown_values_are_null_and_everything_else_is_filled(make_trial):
    row = train_trial(make_trial()).trial
    empty = {name for name, value in row.items() if value is None}
    assert empty <= {
        *("error_class", "error_message", "memory_predicted_bytes", "ray_version", "git_commit", "git_dirty"),
        *("grid_bits", "anchor_every", "activation_budget", "memory_budget_bytes", "coupling_rule"),
        *("steps_skipped", "steps_out_of_range", "stream_max", "stream_limit"),
        *("parallel", "workers_min", "steps"),
        # of other tasks, and of devices whose peak is known
        *("tokens_seen", "tokens_per_s", "context_length", "parameters_non_embedding", "metrics_json", "mfu"),
        *("bits_per_byte_train", "bits_per_byte_val", "bits_per_byte_test"),
        *("bigram_bits_per_byte", "entropy_bits_per_byte"),
    }


def test_the_same_trial_gives_the_same_bits_and_another_seed_does_not(make_trial):
    trial = make_trial(data={"augment": True})
    first, again = train_trial(trial), train_trial(trial)
    assert numbers(first) == numbers(again)
    assert first.trial["loss_test"] == again.trial["loss_test"]
    assert [b["gradient_cosine"] for b in first.blocks] == [b["gradient_cosine"] for b in again.blocks]
    other = train_trial(make_trial(data={"augment": True}, seed=1))
    assert other.epochs[0]["loss_train"] != first.epochs[0]["loss_train"]


def final_state(trial):
    """Rows, and the last state that is saved: weights, running statistics, momenta and generators."""
    states = []
    result = train_trial(trial, save=lambda state, epoch: states.append(copy.deepcopy(state)))
    last = states[-1]
    momenta = [m["momentum_buffer"] for m in last["optimizer"]["state"].values()]
    return result, [*last["model"].values(), *momenta, last["rng"]["cpu"]]


@pytest.mark.parametrize("precision", [{}, {"compute": "bf16", "coupling": "exact"}])
def test_measuring_and_probing_change_nothing(make_trial, precision):
    every = {"every": 1, "reference": True, "lipschitz": True}
    bare, without = final_state(make_trial(precision=precision, probe={"enabled": False}))
    probed, with_probes = final_state(make_trial(precision=precision, probe=every))
    assert len(without) == len(with_probes) > 100
    assert all(torch.equal(a, b) for a, b in zip(without, with_probes, strict=True))
    assert [r["loss_val"] for r in bare.epochs] == [r["loss_val"] for r in probed.epochs]
    assert bare.blocks == [] and bare.trial["reconstruction_rel_error"] is None
    assert probed.trial["reconstruction_rel_error"] is not None


def test_a_probe_that_is_off_is_not_evaluated(make_trial, monkeypatch):
    """It costs nothing: neither the probe's measurements nor an observer in the backward pass."""
    calls = []
    for name in ("fidelity", "lipschitz"):
        whole = getattr(measure, name)
        monkeypatch.setattr(measure, name, lambda *a, _w=whole, _n=name, **k: calls.append(_n) or _w(*a, **k))
    train_trial(make_trial(probe={"enabled": False, "every": 1, "lipschitz": True}))
    assert calls == []
    train_trial(make_trial(probe={"every": 1, "lipschitz": True}))
    assert calls == ["fidelity", "lipschitz"] * 3


def test_the_callers_random_state_is_left_alone(make_trial):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_trial(make_trial())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_trial_gives_the_same_bits(make_trial, optimizer):
    train = {"epochs": 3, "batch_size": 64, "optimizer": optimizer, "learning_rate": 0.01}
    trial = make_trial(train=train, data={"augment": True}, probe={"every": 1})
    states = {}

    def save(state, epoch):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states[epoch] = buffer

    whole = train_trial(trial, save=save)
    assert sorted(states) == [1, 2, 3]
    states[1].seek(0)
    state = torch.load(states[1], weights_only=True)
    resumed = train_trial(trial, attempt=1, resume=state)
    assert numbers(resumed) == numbers(whole)
    assert {row["attempt"] for row in resumed.epochs + resumed.blocks} == {1}
    for name in ("accuracy_test", "loss_test", "memory_peak_bytes", "steps_done", "gradient_angle_deg"):
        assert resumed.trial[name] == whole.trial[name]
    assert len(resumed.blocks) == len(whole.blocks)


def test_a_finished_state_needs_no_more_training(make_trial):
    trial, states = make_trial(), []
    whole = train_trial(trial, save=lambda state, epoch: states.append(state) if epoch == 2 else None)
    assert train_trial(trial, resume=states[0]).trial["loss_test"] == whole.trial["loss_test"]


def test_a_state_of_another_trial_is_refused(make_trial):
    states = []
    train_trial(make_trial(), save=lambda state, epoch: states.append(state))
    result = train_trial(make_trial(seed=1), resume=states[0])
    assert outcome(result) == ("failed", "ValueError")
    assert "a state fits its own trial" in result.trial["error_message"]


def test_divergence_is_an_outcome_with_its_place(make_trial):
    result = train_trial(make_trial(train={"epochs": 2, "batch_size": 64, "learning_rate": 1e30}))
    assert outcome(result) == ("diverged", "DivergedError")
    message = result.trial["error_message"]
    assert "loss is nan at epoch 1, step" in message
    assert "the first block whose output is not finite is block 0" in message
    assert result.trial["accuracy_test"] is None
    assert result.trial["memory_peak_bytes"] > 0


def test_a_stop_prunes_except_after_the_last_epoch(make_trial):
    rows = []
    stopped = train_trial(make_trial(), on_epoch=lambda row: rows.append(row) or True)
    assert outcome(stopped) == ("pruned", "StopError")
    assert rows == stopped.epochs
    assert len(rows) == stopped.trial["epochs_done"] == 1
    assert stopped.trial["accuracy_val"] == rows[0]["accuracy_val"]
    assert stopped.trial["accuracy_test"] is None
    late = train_trial(make_trial(), on_epoch=lambda row: row["epoch"] == 2)
    assert outcome(late) == ("ok", None)


def test_the_deadline_is_an_outcome(make_trial):
    result = train_trial(make_trial(), deadline=time.time() - 1)
    assert outcome(result) == ("timeout", "TimeUpError")
    assert "at epoch 1, step 1" in result.trial["error_message"]


def test_any_other_exception_is_a_failure_with_class_and_message(make_trial):
    result = train_trial(make_trial(data={"train_examples": 10_000}))
    assert outcome(result) == ("failed", "DataError")
    assert "data.train_examples: digits has 1433 training images" in result.trial["error_message"]
    assert result.trial["model"] == "revnet38"
    assert result.epochs == [] and result.trial["epochs_done"] == 0


def test_an_interrupt_passes_through(make_trial):
    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_trial(make_trial(), on_epoch=interrupt)


def test_out_of_memory_is_an_outcome(make_trial):
    """A real shortage: the process may take little more address space than it has."""
    trial = make_trial(
        data={"name": "synthetic:3x64x64x10", "train_examples": 512, "test_examples": 8},
        model={"name": "revnet38", "width": 4.0},
        train={"batch_size": 512},
        memory={"strategy": "store"},
    )
    code = f"""
import resource, torch
torch.set_num_threads(1)
from tests.study.trials import trial_from_dict
from study.train.trial import train_trial
import revmodels.measure
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
row = train_trial(trial_from_dict({trial.to_dict()!r})).trial
print(row['outcome'], row['parameters'], row['error_message'])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("oom "), done.stdout + done.stderr


def test_synthetic_data_have_no_accuracy(make_trial):
    data = {"name": "synthetic:3x16x16x5", "train_examples": 64, "test_examples": 16}
    result = train_trial(make_trial(data=data))
    assert outcome(result) == ("ok", None)
    assert {result.trial[f"accuracy_{s}"] for s in ("train", "val", "test")} == {None}
    assert result.epochs[0]["accuracy_val"] is None
    assert result.trial["loss_train"] > 0


@pytest.mark.parametrize("strategy", ["store", "checkpoint"])
def test_strategies_that_rebuild_nothing_have_no_fidelity(make_trial, strategy):
    result = train_trial(make_trial(memory={"strategy": strategy}))
    assert outcome(result) == ("ok", None)
    assert result.trial["gradient_angle_deg"] is None and result.blocks == []


def test_strategies_train_alike_and_differ_in_memory(make_trial):
    rows = {
        s: train_trial(
            make_trial(memory={"strategy": s}, precision={"compute": "fp64", "stream": "fp64"})
        ).trial
        for s in ("store", "reverse")
    }
    assert rows["store"]["loss_test"] == pytest.approx(rows["reverse"]["loss_test"], rel=1e-9)
    assert rows["store"]["memory_activation_bytes"] > rows["reverse"]["memory_activation_bytes"]
    assert rows["reverse"]["reconstruction_rel_error"] < 1e-13
    assert rows["store"]["memory_parameter_bytes"] == 8 * rows["store"]["parameters"]


def test_the_smallest_revnet_rebuilds_nothing(make_trial):
    result = train_trial(make_trial(model={"depth": 14}))
    assert outcome(result) == ("ok", None)
    assert result.trial["reconstruction_rel_error"] is None
    assert {b["reconstruction_rel_error"] for b in result.blocks} == {None}


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_half_precision_trains(make_trial, compute):
    result = train_trial(
        make_trial(precision={"compute": compute}, train={"epochs": 2, "learning_rate": 0.02})
    )
    assert outcome(result) == ("ok", None), result.trial["error_message"]
    assert result.epochs[1]["loss_train"] < result.epochs[0]["loss_train"]


def test_smoothed_labels_leave_the_recorded_loss_plain(make_trial):
    train = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-12, "weight_decay": 0.0}
    plain, smooth = (
        train_trial(make_trial(train={**train, "label_smoothing": s})).epochs[0] for s in (0.0, 0.3)
    )
    assert smooth["loss_train"] == pytest.approx(plain["loss_train"], rel=1e-6)
    assert smooth["gradient_norm"] != pytest.approx(plain["gradient_norm"], rel=1e-3)


def test_clipping_bounds_the_step_and_not_the_recorded_norm(make_trial):
    train = {"epochs": 1, "batch_size": 256, "learning_rate": 1e-3}
    free, clipped = (train_trial(make_trial(train={**train, "clip_norm": c})) for c in (None, 1e-9))
    assert clipped.epochs[0]["gradient_norm"] == free.epochs[0]["gradient_norm"] > 0.1
    assert clipped.epochs[0]["loss_val"] != free.epochs[0]["loss_val"]


def test_it_learns_digits(make_trial):
    trial = make_trial(
        data={"train_examples": None, "test_examples": None},
        model={"depth": 14, "width": 0.5},
        train={"epochs": 4, "batch_size": 64},
    )
    assert train_trial(trial).trial["accuracy_test"] > 0.95


def test_the_loop_needs_torch_and_pyarrow_only():
    code = "import study.train.trial, sys; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(eval(done.stdout))
    assert {"torch", "pyarrow"} <= loaded
    assert not loaded & {"ray", "pydantic", "optuna", "duckdb", "plotly", "yaml", "typer"}


WORKER = """
import json, sys, torch, torch.distributed as dist
torch.set_num_threads(1)
from tests.study.trials import trial_from_dict
from study.train.session import Distributed
from study.train.trial import train_trial
job = json.load(open(sys.argv[1]))
rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + job["meet"], rank=rank, world_size=2)
for trial in job["trials"]:
    place = Distributed(rank=rank, world_size=2)
    result = train_trial(trial_from_dict(trial), distributed=place, device="cpu")
    row = result.trial
    print(json.dumps([row["outcome"], row["error_message"], row["loss_test"], len(result.blocks),
                      [e["loss_train"] for e in result.epochs], [e["loss_val"] for e in result.epochs]]))
dist.destroy_process_group()
"""


def test_two_workers_share_a_batch_and_agree(make_trial, tmp_path):
    import json

    scaling = {"workers": 2}
    good = make_trial(scaling=scaling, data={"augment": True})
    bad = make_trial(scaling=scaling, train={"epochs": 2, "batch_size": 64, "learning_rate": 1e30})
    job = {"meet": str(tmp_path / "meet"), "trials": [good.to_dict(), bad.to_dict()]}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-c", WORKER, str(tmp_path / "job.json")]
    ranks = [
        subprocess.Popen([*command, str(r)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for r in (0, 1)
    ]
    texts = [rank.communicate(timeout=120) for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), texts
    (good_0, bad_0), (good_1, bad_1) = ([json.loads(line) for line in out.splitlines()] for out, _ in texts)
    assert good_0[0] == good_1[0] == "ok", good_0[1]
    assert good_0[2] == good_1[2] and good_0[4:] == good_1[4:]
    assert good_0[3] > 0 and good_1[3] == 0  # rank 0 probes
    assert bad_0[0] == bad_1[0] == "diverged"
    # One worker sees the same batches; only batch statistics are taken over other images.
    alone = train_trial(make_trial(data={"augment": True}))
    assert good_0[4][0] == pytest.approx(alone.epochs[0]["loss_train"], rel=0.2)


def test_trials_survive_a_trip_to_another_process(make_trial):
    trial = make_trial()
    assert trial_from_dict(trial.to_dict()) == trial


def test_an_exact_coupling_rebuilds_without_error_through_training(make_trial):
    trial = make_trial(precision={"compute": "bf16", "coupling": "exact"}, probe={"every": 1})
    result = train_trial(trial)
    row = result.trial
    assert outcome(result) == ("ok", None), row["error_message"]
    assert (row["coupling"], row["grid_bits"]) == ("exact", 14)
    assert row["reconstruction_rel_error"] == row["gradient_rel_error"] == row["gradient_angle_deg"] == 0
    assert {r["gradient_rel_error"] for r in result.blocks} == {0}


def test_a_range_that_is_too_small_is_named(make_trial):
    result = train_trial(make_trial(precision={"coupling": "exact", "grid_bits": 23}))
    assert outcome(result) == ("failed", "RangeError")
    assert "grid_bits=23 holds values below 2; the output of block" in result.trial["error_message"]
    assert "would fit" in result.trial["error_message"]


def test_a_range_that_is_too_small_can_be_recorded_instead(make_trial):
    precision = {"coupling": "exact", "grid_bits": 23, "on_overflow": "record"}
    row = train_trial(make_trial(precision=precision)).trial
    assert (row["outcome"], row["stream_limit"]) == ("ok", 2), row["error_message"]
    assert row["steps_out_of_range"] == row["steps_done"] == 8
    assert row["stream_max"] > 2
    assert row["reconstruction_rel_error"] > 0, "and it is not exact there"
    wide = train_trial(make_trial(precision={**precision, "grid_bits": 14}))
    assert (wide.trial["steps_out_of_range"], wide.trial["reconstruction_rel_error"]) == (0, 0)
    assert wide.trial["stream_max"] == max(e["stream_max"] for e in wide.epochs) < wide.trial["stream_limit"]
    assert [e["steps_out_of_range"] for e in wide.epochs] == [0, 0]


def test_an_exact_stream_that_is_not_finite_has_diverged(make_trial):
    trial = make_trial(precision={"coupling": "exact"}, train={"learning_rate": 1e30})
    result = train_trial(trial)
    assert outcome(result) == ("diverged", "DivergedError")
    assert "at epoch 1, step 2" in result.trial["error_message"]


def test_overflowing_fp16_gradients_are_skipped_and_counted(make_trial):
    trial = make_trial(precision={"compute": "fp16"}, train={"epochs": 2, "learning_rate": 0.02})
    states = {}
    train_trial(trial, save=lambda state, epoch: states.setdefault(epoch, copy.deepcopy(state)))
    states[1]["scaler"]["scale"] = 2.0**100  # no fp16 gradient survives that; each overflow halves it
    result = train_trial(trial, resume=states[1])
    row = result.trial
    assert outcome(result) == ("ok", None), row["error_message"]
    first, second = (epoch["steps_skipped"] for epoch in result.epochs)
    assert second == 4  # every step of the epoch
    assert row["steps_skipped"] == first + second
    assert row["steps_done"] == 8


def test_every_block_of_a_probe_has_its_streams_its_reference_and_its_constants(make_trial):
    probe = {"reference": True, "lipschitz": True}
    trial = make_trial(probe=probe)
    assert trial.trial_id != make_trial().trial_id
    plain, result = train_trial(make_trial()), train_trial(trial)
    same = [n for n in SAME_RUN if n != "trial_id"]
    assert [[e[n] for n in same] for e in plain.epochs] == [[e[n] for n in same] for e in result.epochs]
    for block in result.blocks:
        rebuilt = block["reconstruction_rel_error"] is not None
        assert (block["reconstruction_rel_error_x1"] is not None) == rebuilt
        assert (block["reconstruction_rel_error_x2"] is not None) == rebuilt
        for whose in ("reference", "stored_reference"):
            assert 0 < block[f"{whose}_rel_error"] < 1
            assert 0.9 < block[f"{whose}_cosine"] <= 1
            assert 0 < block[f"{whose}_angle_deg"] < 20
        assert 0.9 < block["gradient_cosine"] <= 1
        if block["block"] is not None:
            assert block["lipschitz_f"] > 0 and block["lipschitz_g"] > 0
    others = [(b["name"], b["epoch"]) for b in result.blocks if b["block"] is None]
    assert others == [("stem", 0), ("head", 0), ("stem", 2), ("head", 2)]
    first = next(b for b in result.blocks if b["epoch"] == 2 and b["reconstruction_rel_error"] is not None)
    assert result.trial["end_to_end_rel_error"] == first["reconstruction_rel_error"]
    assert {block["lipschitz_f"] for block in plain.blocks} == {None}


class Edge(torch.autograd.Function):
    """Finite values, infinite gradients."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, d):
        return d * math.inf


class Bad(torch.nn.Module):
    """An identity at first; from call `after` on, its gradient is not finite."""

    def __init__(self, after=0):
        super().__init__()
        self.calls, self.after = 0, after

    def forward(self, x):
        self.calls += torch.is_grad_enabled()
        return Edge.apply(x) if self.calls > self.after else x


@pytest.mark.parametrize("compute", ["fp32", "bf16", "fp16"])
def test_a_gradient_that_is_not_finite_ends_the_trial_where_it_arose(make_trial, monkeypatch, compute):
    def with_a_flaw(settings, shape):
        model = build_model(settings, shape)
        # After memory measurement and two steps: one evaluation in each of their backward passes.
        model.body.blocks[1].f.append(Bad(after=3))
        return model

    monkeypatch.setattr("study.train.opening.build_model", with_a_flaw)
    # The scaler of fp16 takes the first ones for overflow: 17 halvings until its scale is below 1.
    train = {"epochs": 1, "batch_size": 8 if compute == "fp16" else 64}
    trial = make_trial(precision={"compute": compute}, probe={"enabled": False}, train=train)
    result = train_trial(trial)
    assert outcome(result) == ("diverged", "DivergedError")
    message = result.trial["error_message"]
    assert "norm of the gradients is" in message
    assert "the gradient first is not in block 1" in message
    step = int(re.search(r"at epoch 1, step (\d+):", message)[1])
    assert 17 < step <= 20 if compute == "fp16" else step == 3


def test_a_bad_gradient_is_traced_to_its_block():
    model = create_model("revnet38", num_classes=10, depth=26, width=0.25)
    model.body.blocks[3].f.append(Bad())
    inputs = torch.randn(2, 3, 8, 8)
    model(inputs).sum().backward()
    assert first_bad_block(model, inputs).endswith("the gradient first is not in block 3")
    with torch.no_grad():
        model.body.blocks[2].g[-1].weight.fill_(math.inf)
    assert first_bad_block(model, inputs) == "the first block whose output is not finite is block 2"
    assert first_bad_block(model, inputs * math.nan) == "the batch itself is not finite"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("batch_size", [2, 64])
def test_the_predicted_peak_is_the_measured_one_to_the_byte(make_trial, optimizer, batch_size):
    """At small batches it lies in the optimizer, which decays weights; at large ones in the backward pass."""
    train = {"epochs": 1, "batch_size": batch_size, "optimizer": optimizer, "weight_decay": 1e-3}
    trial = make_trial(data={"train_examples": 128}, model={"width": 1.0}, train=train)
    row, cost = train_trial(trial).trial, trial_cost(trial.settings)
    assert (cost.memory_bytes, cost.activation_bytes) == (
        row["memory_peak_bytes"],
        row["memory_activation_bytes"],
    )


def test_a_coupling_and_the_growth_that_it_predicts_stand_in_the_row():
    study = load_study("couplings", scale="smoke")
    trials = [t for t in make_plan(study).trials if t.settings.model.coupling in (None, "momentum")]
    rows = [train_trial(trial).trial for trial in trials]
    assert [row["outcome"] for row in rows] == ["ok"] * 4
    assert [row["coupling_rule"] for row in rows] == [None, None, *["momentum(gamma=0.9)"] * 2]
    expected = [1, 1, *(find_coupling("momentum").inverse_error_growth(depth) for depth in (3, 6))]
    assert [row["coupling_growth_predicted"] for row in rows] == pytest.approx(expected)
    cost = trial_cost(trials[-1].settings)
    assert cost.coupling_growth == pytest.approx(expected[-1])
