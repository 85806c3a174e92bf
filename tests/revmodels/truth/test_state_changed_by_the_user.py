"""What somebody changes between the forward pass and the backward pass is refused, not recomputed with."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from revmodels.errors import ReplayError
from tests.revmodels.truth.judge import (
    WIDTH,
    batch,
    gradients,
    judge,
    loss_of,
    put,
    refuse,
    sequence,
    strategies,
)

REPLAYING = pytest.mark.parametrize("strategy", ("reverse", "anchors", "checkpoint"))


def plain():
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(0.3), nn.Linear(WIDTH, WIDTH)
    )


def linear():
    return nn.Linear(WIDTH, WIDTH)


class Masked(nn.Module):
    """Not made of known layers alone."""

    def __init__(self):
        super().__init__()
        self.inner = plain()
        self.mask = torch.ones(WIDTH, dtype=torch.float64)

    def forward(self, x):
        return self.inner(x) * self.mask


BETWEEN = {"match": "between forward and backward", "error": ReplayError}
KINDS = pytest.mark.parametrize("make", [plain, Masked])


def first(net, kind):
    return next(m for m in net.blocks[0].modules() if isinstance(m, kind))


def freeze(net):
    for p in net.parameters():
        p.requires_grad_(False)
    return net


@torch.no_grad()
def scale_weight(net):
    first(net, nn.Linear).weight.mul_(2)


@torch.no_grad()
def scale_running_mean(net):
    first(net, nn.BatchNorm1d).running_var.add_(1)


def set_data(net):
    p = first(net, nn.Linear).weight
    p.data = p.data * 2


def replace_weight(net):
    layer = first(net, nn.Linear)
    layer.weight = nn.Parameter(layer.weight.detach() * 2, requires_grad=layer.weight.requires_grad)


def replace_layer(net):
    unit = net.blocks[0]
    fn = unit.f.inner if isinstance(unit.f, Masked) else unit.f
    fn[0] = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)


CHANGES = {
    "weight in place": scale_weight,
    "data": set_data,
    "weight replaced": replace_weight,
    "layer replaced": replace_layer,
    "eval": lambda net: net.eval(),
    "rate": lambda net: setattr(first(net, nn.Dropout), "p", 0.9),
}


def changing(change):
    def step(net, x):
        loss = loss_of(net(x))
        change(net)
        loss.backward()
        return gradients(net, x)

    return step


@REPLAYING
@KINDS
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_refused(what, frozen, make, strategy):
    net = sequence(make)
    net = freeze(net) if frozen else net
    refuse(
        net,
        batch(5, 2 * WIDTH),
        strategy,
        changing(CHANGES[what]),
        match="between forward and backward",
        error=ReplayError,
    )


@REPLAYING
@KINDS
@pytest.mark.parametrize("what", ["eval to train", "buffer"])
def test_refused_in_eval_mode(what, make, strategy):
    change = (lambda net: net.train()) if what == "eval to train" else scale_running_mean
    net = sequence(make).eval()
    refuse(
        net,
        batch(5, 2 * WIDTH),
        strategy,
        changing(change),
        match="between forward and backward",
        error=ReplayError,
    )


@REPLAYING
@pytest.mark.parametrize("how", ["replaced", "in place"])
def test_a_mask(how, strategy):
    def change(net):
        f = net.blocks[1].f
        if how == "replaced":
            f.mask = torch.zeros(WIDTH, dtype=torch.float64)
        else:
            f.mask.mul_(0.5)

    refuse(
        sequence(Masked),
        batch(5, 2 * WIDTH),
        strategy,
        changing(change),
        match="'mask' of Masked in (F of )?unit 1",
        error=ReplayError,
    )


@REPLAYING
@KINDS
def test_changed_and_changed_back_is_right(make, strategy):
    """As an evaluation between the passes does."""

    def step(net, x):
        loss = loss_of(net(x))
        net.eval()
        with torch.no_grad():
            net(x)
        net.train()
        loss.backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(make), batch(5, 2 * WIDTH), strategy, step)


@REPLAYING
@KINDS
def test_several_forward_passes_before_one_backward_pass(make, strategy):
    def step(net, x):
        (loss_of(net(x)) * loss_of(net(x * 0.5))).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(make), batch(5, 2 * WIDTH), strategy, step)


@REPLAYING
def test_a_functional_call_on_frozen_weights(strategy):
    def step(net, x):
        others = {n: p * 2 for n, p in net.named_parameters()}
        loss_of(functional_call(net, others, (x,))).backward()
        return {"x": x.grad}

    net = freeze(sequence(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())))
    try:
        judge(net, batch(5, 2 * WIDTH), strategy, step)
    except ReplayError as error:
        assert "between forward and backward" in str(error)


class Doubled(nn.Module):
    def forward(self, w):
        return w * 2


@REPLAYING
@pytest.mark.parametrize("inside", [False, True])
def test_cached_parametrizations_are_right_or_refused(inside, strategy):
    shared = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
    parametrize.register_parametrization(shared, "weight", Doubled())

    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = shared

        def forward(self, x):
            return F.linear(torch.tanh(x), self.layer.weight)

    def step(net, x):
        for p in shared.parameters():
            p.grad = None
        with parametrize.cached():
            loss = loss_of(net(x))
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        return gradients(net, x)

    net = sequence(Uses)
    with contextlib.suppress(ReplayError):
        judge(net, batch(5, 2 * WIDTH), strategy, step)


def switched(after):
    """A step of a network under a checkpoint of the user's, whose strategy is changed before the backward."""

    def step(net, x):
        loss = loss_of(checkpoint(net, x, use_reentrant=False))
        if net.strategy != "store":
            net.anchor_every, net.strategy = None, after
        loss.backward()
        return gradients(net, x)

    return step


@pytest.mark.parametrize("after", ["store", "reverse", "checkpoint", "recursive"])
@pytest.mark.parametrize("make", [nn.Tanh, lambda: nn.Linear(WIDTH, WIDTH)])
@strategies
def test_a_strategy_that_changes_under_a_checkpoint_around_is_right_or_refused(strategy, make, after):
    torch.manual_seed(0)
    net, x = sequence(make, 2), batch(3, 2 * WIDTH)
    if strategy == after:
        judge(net, x, strategy, switched(after))
    else:
        refuse(net, x, strategy, switched(after), match="between its forward pass and its recomputation")


@REPLAYING
def test_units_that_are_added_under_a_checkpoint_around_are_refused(strategy):
    net = put(sequence(nn.Tanh, 2), strategy)
    loss = loss_of(checkpoint(net, batch(3, 2 * WIDTH), use_reentrant=False))
    net.blocks.append(sequence(nn.Tanh, 1).blocks[0])
    with pytest.raises(ReplayError, match="the units, the strategy"):
        loss.backward()


@REPLAYING
def test_an_output_written_to_is_refused_where_hooks_hand_back_the_same_memory(strategy):
    net = put(sequence(linear, 2), strategy)
    x = batch(2, 3, WIDTH).unbind()
    with torch.autograd.graph.save_on_cpu():
        y1, y2 = net(*x)
    # What checkpoint keeps is what each unit is given, the others their result.
    for kept in x if strategy == "checkpoint" else (y1, y2):
        kept.detach().mul_(2)
    with pytest.raises(ReplayError, match="modified by an inplace operation"):
        (y1.sum() + y2.sum()).backward()


@REPLAYING
def test_an_output_written_to_is_right_where_hooks_have_copied_it(strategy):
    net, x = put(sequence(linear, 2), strategy), batch(3, 2 * WIDTH)
    expected = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda t: t):
        y = net(x)
    y.detach().mul_(2)
    found = torch.autograd.grad(y.sum(), list(net.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(found, expected, strict=True))


@strategies
def test_a_strategy_may_change_where_a_checkpoint_around_has_been_differentiated(strategy):
    def step(net, x):
        loss_of(checkpoint(net, x, use_reentrant=False)).backward()
        if net.strategy != "store":
            net.anchor_every, net.strategy = None, "recursive"
        loss_of(checkpoint(net, x, use_reentrant=False)).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(nn.Tanh), batch(3, 2 * WIDTH), strategy, step)
