"""Peak memory: flat in depth when reversing, the same on real and fake tensors, and no trace left."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.measure import peak_memory, predict_memory
from revmodels.memory import recurrent
from revmodels.memory import step as memory


def batch_of(n=8, channels=3, size=16, dtype=torch.float32):
    return torch.randn(n, channels, size, size, dtype=dtype), torch.randint(10, (n,))


def build(depth, strategy, precision=None, width=0.5):
    return create_model(
        "revnet38", num_classes=10, depth=depth, width=width, strategy=strategy, precision=precision
    )


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_activation_memory_is_flat_in_depth_to_the_byte_when_reversing(compute):
    precision = Precision(compute=compute)
    flat = {d: peak_memory(build(d, "reverse", precision), batch_of()) for d in (26, 38, 74)}
    grows = {d: peak_memory(build(d, "store", precision), batch_of()) for d in (26, 38, 74)}
    assert len({use.activation_bytes for use in flat.values()}) == 1
    assert len({use.saved_bytes for use in flat.values()}) == 1
    per_layer = (grows[74].activation_bytes - grows[38].activation_bytes) / (74 - 38)
    assert grows[38].activation_bytes - grows[26].activation_bytes == pytest.approx(12 * per_layer)
    assert per_layer > 0


@pytest.mark.parametrize("strategy", ["store", "reverse", "checkpoint"])
@pytest.mark.parametrize("compute", ["fp32", "fp64", "bf16"])
def test_prediction_equals_measurement_to_the_byte(strategy, compute):
    precision = Precision(compute=compute)
    model, batch = build(26, strategy, precision), batch_of(dtype=precision.parameter_dtype)
    measured = peak_memory(model, batch)
    on_meta = tuple(t.to("meta") for t in batch)
    assert predict_memory(model, on_meta) == measured
    assert predict_memory(lambda: build(26, strategy, precision), on_meta) == measured


def squares(out, targets):
    return (out - targets).square().mean()


class Recurrent(nn.LSTM):
    """An LSTM that returns its sequence alone."""

    def forward(self, x):
        return super().forward(x)[0]


@pytest.mark.parametrize("strategy", ["store", "reverse", "checkpoint"])
@pytest.mark.parametrize("settings", [{}, {"num_layers": 2}, {"bias": False}])
def test_prediction_of_an_lstm_equals_measurement_to_the_byte(strategy, settings):
    blocks = [
        ReversibleBlock(
            Recurrent(16, 16, batch_first=True, **settings), Recurrent(16, 16, **settings), split_dim=-1
        )
        for _ in range(3)
    ]
    model = ReversibleSequence(blocks, strategy, split_dim=-1)
    batch = torch.randn(4, 10, 32), torch.randn(4, 10, 32)
    assert predict_memory(model, batch, loss=squares) == peak_memory(model, batch, loss=squares)


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss, F.huber_loss, F.l1_loss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_prediction_under_a_loss_of_regression_equals_measurement_to_the_byte(loss, reduction):
    loss, batch = partial(loss, reduction=reduction), (torch.randn(4, 64), torch.randn(4, 64))
    model = nn.Linear(64, 64)
    assert predict_memory(model, batch, loss=loss) == peak_memory(model, batch, loss=loss)


def test_prediction_of_a_large_lstm_is_made_from_a_part_of_its_batch(monkeypatch):
    model, batch = Recurrent(32, 32), (torch.randn(16, 64, 32), torch.randn(16, 64, 32))
    monkeypatch.setattr(recurrent, "MOST_NUMBERS", 16 * 8 * 32)
    recurrent._asked.cache_clear()
    predicted = predict_memory(model, batch, loss=squares).activation_bytes
    recurrent._asked.cache_clear()
    measured = peak_memory(model, batch, loss=squares).activation_bytes
    assert predicted == pytest.approx(measured, rel=0.05)


def test_categories_add_up_to_what_is_known():
    model, batch = build(26, "store"), batch_of()
    numbers = sum(p.numel() for p in model.parameters())
    use = peak_memory(model, batch, lambda ps: torch.optim.AdamW(ps, lr=1e-3))
    assert use.parameter_bytes == use.gradient_bytes == 4 * numbers
    assert 8 * numbers <= use.optimizer_bytes <= 8 * numbers + 4 * len(list(model.parameters()))
    assert use.buffer_bytes == sum(b.nbytes for b in model.buffers())
    assert use.input_bytes == sum(t.nbytes for t in batch)
    assert use.total_bytes >= use.activation_bytes + use.parameter_bytes + use.buffer_bytes + use.input_bytes
    assert use.source == "tracker"
    assert use.temporary_bytes == use.activation_bytes - use.saved_bytes


def test_total_agrees_with_pytorchs_own_tracker():
    torch.manual_seed(0)
    model, batch = build(26, "store"), batch_of()
    ours = peak_memory(model, batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    theirs = MemTracker()
    theirs.track_external(model, optimizer, *batch)
    with theirs:
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()
    peak = theirs.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert ours.total_bytes == pytest.approx(peak, rel=0.001)


def test_a_layer_is_counted_by_hand():
    use = peak_memory(nn.Linear(10, 10, bias=False), (torch.randn(4, 10), torch.randint(10, (4,))))
    # Saved: log-probabilities (4 x 10), and cross-entropy's total weight, a scalar.
    assert use.parameter_bytes == use.gradient_bytes == use.optimizer_bytes == 400
    assert 160 <= use.saved_bytes <= 2 * 160 + 16


def test_nothing_is_left_behind():
    torch.manual_seed(0)
    model, batch = build(26, "reverse"), batch_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    momenta = [optimizer.state[p]["momentum_buffer"].clone() for p in model.parameters()]
    random = torch.get_rng_state()
    peak_memory(model, batch, optimizer)
    predict_memory(model, batch)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    kept = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(kept, momenta, strict=True))
    assert torch.equal(torch.get_rng_state(), random)


def test_prediction_of_a_network_too_large_for_this_machine():
    batch = torch.empty(8192, 3, 224, 224, device="meta"), torch.empty(8192, dtype=torch.long, device="meta")
    use = predict_memory(lambda: create_model("revnet104", num_classes=1000), batch)
    assert use.activation_bytes > 1e11


def test_a_compiled_model_is_measured_by_the_allocator_and_left_untouched():
    """Under the compiler `eager` a compiled model runs the very operations that the tracker follows."""
    model, batch = build(26, "store", width=1.0), batch_of(size=32)
    before = [p.detach().clone() for p in model.parameters()]
    tracked, compiled = peak_memory(model, batch), peak_memory(torch.compile(model, backend="eager"), batch)
    assert (tracked.source, compiled.source) == ("tracker", "cpu_allocator")
    agree(compiled, tracked)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("strategy", ["store", "reverse", "checkpoint"])
def test_the_allocator_agrees_with_the_tracker(strategy):
    model, batch = build(26, strategy, width=1.0), batch_of(size=32)
    tracked = peak_memory(model, batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    agree(memory._profiled_step(model, memory.call_of(batch), optimizer, F.cross_entropy), tracked)


def agree(allocated, tracked):
    assert allocated.saved_bytes == pytest.approx(tracked.saved_bytes, rel=0.01)
    assert allocated.total_bytes == pytest.approx(tracked.total_bytes, rel=0.1)
    assert allocated.activation_bytes == pytest.approx(tracked.activation_bytes, rel=0.1)
    assert allocated.gradient_bytes == tracked.gradient_bytes
