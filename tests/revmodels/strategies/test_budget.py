"""A memory budget: kept by the measured peak, with right gradients and no more recomputation than needed."""

import pytest
import torch
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.errors import BudgetError
from revmodels.measure import peak_memory, predict_memory
from revmodels.strategies.budget_plan import plan_memory
from revmodels.strategies.memory_plan import KeptLayer
from revmodels.strategies.unit_cost import UnitCost
from tests.revmodels.blocks import assert_equal_gradients, gradients

FP64 = Precision(compute="fp64", stream="fp64")
DEPTH = 38


def network(strategy="store"):
    torch.manual_seed(0)
    return create_model("revnet38", num_classes=10, depth=DEPTH, width=0.5, strategy=strategy, precision=FP64)


def batch(n=4):
    torch.manual_seed(1)
    return torch.randn(n, 3, 16, 16, dtype=torch.float64), torch.randint(10, (n,))


def test_measured_peak_is_the_predicted_one_and_within_the_budget():
    stored = predict_memory(network(), batch()).activation_bytes
    recomputed = []
    for share in (0.3, 0.5, 0.75, 1.0):
        model = network()
        model.strategy = "budget"
        model.memory_budget_bytes = int(share * stored)
        measured = peak_memory(model, batch()).activation_bytes
        plan = model.memory_plan()
        assert measured == plan.predicted_bytes <= plan.budget_bytes
        assert plan.stored_bytes == stored
        recomputed.append(plan.recomputed)
    assert recomputed == sorted(recomputed, reverse=True)
    assert recomputed[0] > recomputed[1] > recomputed[-1] == 0


@pytest.mark.parametrize("share", [0.75, 0.5, 0.28])
def test_gradients_of_a_mixed_plan_equal_stored_mode(share):
    model, (x, _) = network(), batch()
    stored = predict_memory(model, batch()).activation_bytes
    model.strategy = "budget"
    model.memory_budget_bytes = int(share * stored)
    _, exact, buffers, _ = gradients(model, "store", x)
    _, found, moved, _ = gradients(model, "budget", x)
    plan = model.memory_plan()
    assert len(set(plan.modes)) > 1
    assert {layer.kind for unit in plan.layers for layer in unit} == {"Conv2d"}
    assert_equal_gradients(exact, found, 1e-11)
    assert all(torch.equal(buffers[name], moved[name]) for name in buffers)


def test_late_units_hold_more_and_the_plan_prints():
    model = network("budget")
    model.memory_budget_bytes = int(0.3 * predict_memory(network(), batch()).activation_bytes)
    model(batch()[0])
    plan = model.memory_plan()
    assert (plan.modes[1], plan.layers[1]) == ("reverse", ())
    assert plan.modes[-2:] == ("checkpoint", "checkpoint") and all(plan.layers[-2:])
    # The values of the last layers take the bytes of the input, which also spares the inverse.
    place = plan.layer_names.index(("f.2", "g.2"))
    assert plan.modes[place] == "checkpoint"
    assert "bytes predicted" in str(plan)
    assert "units: checkpoint 0, reverse 1" in str(plan)
    kept = plan.layers[place][0]
    line = next(line for line in str(plan).splitlines() if line.startswith(f"layers of {place}"))
    assert line.endswith(
        f"f.2, g.2 (Conv2d); {kept.bytes:,} bytes each, and {kept.operations / kept.bytes:,.0f} operations "
        "saved for each byte"
    )


def test_without_a_number_the_peak_of_reverse_is_the_budget():
    model, reverse = network("budget"), network("reverse")
    peak = peak_memory(reverse, batch(16)).activation_bytes
    assert peak_memory(model, batch(16)).activation_bytes <= peak
    plan = model.memory_plan()
    assert plan.budget_bytes == plan.smallest_bytes
    assert plan.recomputed < 1


def test_a_larger_batch_is_planned_anew_and_a_smaller_one_is_not():
    model = network("budget")
    model.memory_budget_bytes = predict_memory(network(), batch(4)).activation_bytes
    model(batch(4)[0])
    small = model.memory_plan()
    model(batch(2)[0])
    assert model.memory_plan() is small
    model(batch(8)[0])
    assert model.memory_plan().recomputed > small.recomputed == 0


def test_a_sequence_on_its_own():
    def make(strategy, **options):
        torch.manual_seed(0)
        blocks = [ReversibleBlock(nn.Linear(32, 32), nn.Linear(32, 32)) for _ in range(8)]
        return ReversibleSequence(blocks, strategy, **options).double()

    x = torch.randn(64, 64, dtype=torch.float64, requires_grad=True)
    mixed = make("budget", memory_budget_bytes=200_000)
    _, exact, _, _ = gradients(make("store"), "store", x)
    _, found, _, _ = gradients(mixed, "budget", x)
    assert_equal_gradients(exact, found, 1e-12)
    assert set(mixed.modes) == {"store", "reverse"}


def test_impossible_budget_names_the_smallest():
    smallest = predict_memory(network("reverse"), batch()).activation_bytes
    model = network("budget")
    model.memory_budget_bytes = smallest // 2
    with pytest.raises(BudgetError) as caught:
        model(batch()[0])
    possible = int(str(caught.value).split("batch is ")[1].split(" bytes")[0].replace(",", ""))
    assert possible == pytest.approx(smallest, rel=0.02)
    model.memory_budget_bytes = possible
    model(batch()[0])
    assert "store" not in model.memory_plan().modes[:3]


@pytest.mark.parametrize("value", [0, -5, 1.5, True])
def test_senseless_budget_is_refused(value):
    model = network("budget")
    model.memory_budget_bytes = value
    with pytest.raises(BudgetError, match="positive whole number of bytes"):
        model(batch()[0])
    with pytest.raises(BudgetError, match="when it has seen the shape"):
        model.memory_plan()


def test_a_plan_is_kept_for_shapes_and_not_for_their_product():
    """A wide plan for many short rows is no plan for one long row, whose attention is quadratic in length."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(8, 8)

        def forward(self, x):
            return self.out((x @ x.transpose(-1, -2)).softmax(-1) @ x)

    def make():
        torch.manual_seed(0)
        blocks = [ReversibleBlock(Mixing(), Mixing(), split_dim=-1) for _ in range(6)]
        return ReversibleSequence(blocks, "budget", split_dim=-1)

    short, long = torch.randn(16, 16, 16), torch.randn(1, 256, 16)
    net, fresh = make(), make()
    for module, inputs in ((net, short), (net, long), (fresh, long)):
        module(inputs).sum().backward()
    assert net.plan == fresh.plan
    net(short)
    assert net.plan.budget_bytes < fresh.plan.budget_bytes


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.eval(),
        lambda m: m.requires_grad_(False),
        lambda m: setattr(m, "memory_budget_bytes", 10**9),
        lambda m: setattr(m, "anchor_every", None) or m.float(),
    ],
    ids=["mode", "frozen", "budget", "dtype"],
)
def test_what_memory_depends_on_is_planned_for(change):
    def make():
        torch.manual_seed(0)
        blocks = [ReversibleBlock(nn.Linear(32, 32), nn.Linear(32, 32)) for _ in range(4)]
        return ReversibleSequence(blocks, "budget").double()

    net = make()
    net(torch.randn(8, 64, dtype=torch.float64))
    assert len(net.plans.known) == 1
    change(net)
    net(torch.randn(8, 64, dtype=next(net.parameters()).dtype))
    assert len(net.plans.known) == 2


def test_the_gradient_of_the_loss_is_counted():
    """The peak of a short network is where the loss's gradient arrives: a plan must leave room for it."""
    torch.manual_seed(0)
    blocks = [ReversibleBlock(nn.Linear(32, 32), nn.Linear(32, 32)) for _ in range(12)]
    net = ReversibleSequence(blocks, "budget")
    x = torch.randn(64, 64)
    budget = int(0.8 * predict_memory(put(net, "store"), (x, torch.zeros(64, 64)), loss=mse).activation_bytes)
    net.strategy, net.memory_budget_bytes = "budget", budget
    assert peak_memory(net, (x, torch.zeros(64, 64)), loss=mse).activation_bytes <= budget


def put(net, strategy):
    net.strategy = strategy
    return net


def mse(out, target):
    return nn.functional.mse_loss(out, target)


def test_a_repeated_block_is_planned_and_right():
    torch.manual_seed(0)
    block = ReversibleBlock(nn.Linear(32, 32), nn.Linear(32, 32))
    net = ReversibleSequence([block, block, block], "budget").double()
    x = torch.randn(8, 64, dtype=torch.float64)
    _, exact, _, _ = gradients(net, "store", x)
    net.strategy = "budget"
    _, found, _, _ = gradients(net, "budget", x)
    assert len(net.plan.modes) == 3
    assert_equal_gradients(exact, found, 1e-12)


def test_a_network_around_the_sequence_is_planned_beforehand():
    torch.manual_seed(0)
    body = ReversibleSequence(
        [ReversibleBlock(nn.Linear(32, 32), nn.Linear(32, 32)) for _ in range(4)], "budget"
    )
    net, x = nn.Sequential(nn.Linear(8, 64), body, nn.Linear(64, 2)), torch.randn(16, 8)
    plan = plan_memory(net, x)
    net(x).sum().backward()
    assert body.plan is plan


def test_what_is_predicted_of_a_budget_is_what_is_measured():
    model = network("budget")
    predicted = predict_memory(model, batch())
    assert predicted.activation_bytes == peak_memory(model, batch()).activation_bytes


def test_a_unit_holds_its_input_only_where_that_takes_no_more_than_the_values():
    """Where F is a module of its own, keeping the input saves the last product of G alone."""
    last = KeptLayer(name="g.3", kind="Linear", operations=800, bytes=10)
    first = KeptLayer(name="f.out", kind="Linear", operations=200, bytes=10)
    cost = UnitCost(work=2000, graph_bytes=200, input_bytes=20, layers=(first, last), lasts=(last,))
    ways = list(cost.holdings("reverse"))
    assert [(way.mode, way.layers, way.bytes) for way in ways] == [
        ("reverse", (), 0),
        ("reverse", (last,), 10),
        ("reverse", (last, first), 20),
        ("store", (), 200),
    ]
    assert [way.repeated for way in ways] == [2000, 1200, 1000, 0]
    both = UnitCost(work=2000, graph_bytes=200, input_bytes=20, layers=(first, last), lasts=(first, last))
    assert [(way.mode, way.layers) for way in both.holdings("reverse")][2] == ("checkpoint", ())
    assert [way.mode for way in both.holdings("checkpoint")] == ["checkpoint", "store"]
