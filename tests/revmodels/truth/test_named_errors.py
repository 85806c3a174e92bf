"""Uses at the edge of what PyTorch offers: they work as in stored mode, or the error says what to do."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from revmodels import ReversibleBlock, ReversibleSequence, create_model
from revmodels.errors import ReplayError, ResidualError, TransformError
from tests.revmodels.truth.judge import (
    WIDTH,
    batch,
    gradients,
    judge,
    loss_of,
    put,
    refuse,
    sequence,
    staged,
    strategies,
)

REPLAYING = pytest.mark.parametrize("strategy", ("reverse", "anchors"))


def mlp():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))


@REPLAYING
@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp"])
def test_function_transforms(transform, strategy):
    net = put(sequence(mlp), strategy)
    x = batch(3, 2 * WIDTH, requires_grad=False)

    def scalar(x):
        return net(x).sum()

    with pytest.raises(TransformError, match="strategy='store'"):
        if transform == "grad":
            torch.func.grad(scalar)(x)
        elif transform == "vmap":
            torch.func.vmap(lambda row: net(row[None]))(x)
        else:
            torch.func.jvp(scalar, (x,), (torch.ones_like(x),))


def test_function_transforms_of_stored_mode_work():
    net, x = put(sequence(mlp), "store"), batch(3, 2 * WIDTH)
    torch.testing.assert_close(
        torch.func.grad(lambda x: net(x).sum())(x), torch.autograd.grad(net(x).sum(), x)[0]
    )


@REPLAYING
@pytest.mark.parametrize("dual", ["input", "parameter"])
def test_forward_mode_differentiation(dual, strategy):
    net, x = put(sequence(mlp), strategy), batch(3, 2 * WIDTH, requires_grad=False)
    with forward_ad.dual_level():
        if dual == "input":
            x = forward_ad.make_dual(x, torch.ones_like(x))
        else:
            layer = net.blocks[0].f[0]
            weight = layer.weight.detach()
            del layer.weight
            layer.weight = forward_ad.make_dual(weight, torch.ones_like(weight))
        with pytest.raises(TransformError, match="forward-mode differentiation"):
            net(x)


@strategies
def test_flops_are_counted(strategy):
    net, x = put(sequence(mlp), strategy), batch(3, 2 * WIDTH)
    with FlopCounterMode(display=False) as counter:
        loss_of(net(x)).backward()
    stored = 3 * 3 * 4 * 2 * 3 * WIDTH * WIDTH
    assert stored <= counter.get_total_flops() <= stored * 4 / 3


@strategies
@pytest.mark.parametrize("strategy_of", ["sequence", "network"])
def test_the_meta_device(strategy_of, strategy):
    if strategy_of == "sequence":
        net, x = sequence(mlp).to("meta"), torch.empty(3, 2 * WIDTH, device="meta", dtype=torch.float64)
        put(net, strategy)
    else:
        if strategy in ("budget", "anchors"):
            pytest.skip("as the sequence")
        net = create_model("revnet38", num_classes=10, depth=14, width=0.25, strategy=strategy).to("meta")
        x = torch.empty(2, 3, 8, 8, device="meta")
    net(x).sum().backward()
    assert all(p.grad.shape == p.shape for p in net.parameters())


def test_lazy_layers():
    net = ReversibleSequence([ReversibleBlock(nn.LazyLinear(WIDTH), nn.LazyLinear(WIDTH))])
    x = torch.randn(3, 2 * WIDTH)
    with pytest.raises(ReplayError, match=r"'weight' of LazyLinear in F of unit 0 has no shape yet"):
        net(x)
    with torch.no_grad():
        net(x)
    net(x).sum().backward()


@strategies
def test_an_input_without_a_batch(strategy):
    torch.manual_seed(0)
    judge(sequence(mlp, dim=0), batch(2 * WIDTH), strategy)


@strategies
def test_a_stage_entry_without_a_batch(strategy):
    torch.manual_seed(0)
    net = staged(mlp)
    net.split_dim = 0
    judge(net, batch(2 * WIDTH), strategy)


class WritesToItsInput(nn.Module):
    def forward(self, x):
        return x.mul_(2)


@REPLAYING
@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.ReLU(inplace=True), mlp()), WritesToItsInput])
def test_a_first_layer_in_place_names_the_block(make, strategy):
    blocks = [ReversibleBlock(mlp(), mlp()), ReversibleBlock(mlp(), make())]
    net = ReversibleSequence(blocks).double()
    refuse(
        net,
        batch(3, 2 * WIDTH),
        strategy,
        match="G of unit 1 changes its argument in place",
        error=ReplayError,
    )


@pytest.mark.parametrize("strategy", ["checkpoint", "recursive", "budget"])
def test_a_unit_that_writes_to_its_input_is_named_by_the_checkpoint_around_it(strategy):
    blocks = [ReversibleBlock(mlp(), mlp()) for _ in range(3)]
    net = ReversibleSequence([*blocks[:2], ReversibleBlock(WritesToItsInput(), mlp()), blocks[2]]).double()
    match = "(F of unit 2|unit 2|units 2 to 2|units 0 to 2) changes its (argument|input) in place"
    refuse(net, batch(3, 2 * WIDTH), strategy, match=match, error=ReplayError)


def test_plain_functions():
    with pytest.raises(ResidualError, match=r"g: F and G are modules.*received builtin_function_or_method"):
        ReversibleBlock(nn.Tanh(), torch.tanh)


class To(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.layer = nn.Linear(a, b)

    def forward(self, x):
        return torch.tanh(self.layer(x))


@strategies
def test_streams_of_unequal_widths(strategy):
    class Unequal(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = ReversibleSequence([ReversibleBlock(To(5, 3), To(3, 5)) for _ in range(3)])

        def forward(self, x):
            return torch.cat(self.body(x[:, :3], x[:, 3:]), 1)

    torch.manual_seed(0)
    judge(Unequal().double(), batch(4, 8), strategy)


@strategies
def test_a_network_without_parameters(strategy):
    judge(sequence(nn.Tanh), batch(3, 2 * WIDTH), strategy)


class Keywords(nn.Module):
    """Calls a layer by keywords, which returns more than a tensor."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def branch(self, *, x, scale=1.0):
        return {"value": torch.tanh(x) * scale, "note": "text", "nothing": None}

    def forward(self, x):
        return self.branch(x=self.layer(x), scale=0.5)["value"]


@strategies
def test_keywords_and_results_that_are_no_tensors_inside(strategy):
    torch.manual_seed(0)
    judge(sequence(Keywords), batch(3, 2 * WIDTH), strategy)


class Checkpointed(nn.Module):
    def __init__(self, reentrant=False):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3), nn.Tanh())
        self.reentrant = reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@strategies
@pytest.mark.parametrize("early_stop", [True, False])
def test_checkpointing_inside(early_stop, strategy):
    def step(net, x):
        with torch.utils.checkpoint.set_checkpoint_early_stop(early_stop):
            loss_of(net(x)).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(Checkpointed), batch(3, 2 * WIDTH), strategy, step)


@REPLAYING
def test_reentrant_checkpointing_inside_is_refused(strategy):
    net = sequence(lambda: Checkpointed(reentrant=True))
    refuse(
        net, batch(3, 2 * WIDTH), strategy, match="G of unit 2 uses .*use_reentrant=False", error=ReplayError
    )


@strategies
@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("make", [mlp, Checkpointed, Keywords])
def test_checkpointing_around(make, reentrant, early_stop, strategy):
    def step(net, x):
        with torch.utils.checkpoint.set_checkpoint_early_stop(early_stop):
            loss_of(checkpoint(net, x, use_reentrant=reentrant)).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(make), batch(3, 2 * WIDTH), strategy, step)


@REPLAYING
def test_an_output_changed_in_place(strategy):
    def step(net, x):
        y1, y2 = net(x[:, :WIDTH], x[:, WIDTH:])
        y2.mul_(2)
        (loss_of(y1) + loss_of(y2)).backward()
        return gradients(net, x)

    refuse(sequence(mlp), batch(3, 2 * WIDTH), strategy, step, match="Change a copy of it", error=ReplayError)


@strategies
@pytest.mark.parametrize("stream", [0, 1])
def test_a_loss_on_one_stream(stream, strategy):
    """What the other stream alone depends on gets no gradient, not one of zeros."""

    def step(net, x):
        loss_of(net(x[:, :WIDTH], x[:, WIDTH:])[stream]).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(mlp), batch(3, 2 * WIDTH), strategy, step)


class Zeros(nn.Module):
    """Does not depend on what it is called with."""

    def forward(self, x):
        return torch.zeros_like(x)


@pytest.mark.parametrize("strategy", ["reverse", "anchors"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_hook_on_a_stream_that_has_no_gradient_is_refused(moment, strategy):
    def step(net, x):
        pair = [part.detach().requires_grad_() for part in x.chunk(2, 1)]
        if moment == "before":
            pair[1].register_hook(lambda d: d * 0.5)
        out = net(*pair)
        if moment == "after":
            pair[1].register_hook(lambda d: d * 0.5)
        loss_of(out[0]).backward()

    net = sequence(Zeros)
    refuse(net, batch(3, 2 * WIDTH), strategy, step, match="would be called without a gradient")


@strategies
def test_a_hook_on_a_stream_that_has_a_gradient_stays(strategy):
    def step(net, x):
        pair = [part.detach().requires_grad_() for part in x.chunk(2, 1)]
        pair[0].register_hook(lambda d: d * 0.5)
        loss_of(net(*pair)[0]).backward()
        return {"first": pair[0].grad, "second": pair[1].grad}

    judge(sequence(Zeros), batch(3, 2 * WIDTH), strategy, step)


@strategies
@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("unit", [0, 1, 2])
def test_hooks_on_the_streams_between_units(unit, stream, strategy):
    """A hook sees the gradient of what is done with a stream outside the unit that returned it."""

    def step(net, x):
        kept = []

        def put_hook(_, __, pair):
            pair[stream].register_hook(lambda d: kept.append(d.clone()) or d * 0.5)
            pair[1 - stream].retain_grad()
            kept.append(pair[1 - stream])

        net.blocks[unit].register_forward_hook(put_hook)
        loss_of(net(x)).backward()
        return {"kept": kept[0].grad, "seen": kept[1], **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(mlp), batch(3, 2 * WIDTH), strategy, step)
