"""Tensors that F and G read otherwise than as registered parameters get their gradients, or are refused."""

import contextlib

import pytest
import torch
from torch import nn
from torch.func import functional_call

from revmodels import ReversibleBlock, ReversibleSequence
from revmodels.errors import KeptTensorError, OutsideTensorError, ReplayError
from tests.revmodels.truth.judge import WIDTH, batch, gradients, judge, loss_of, refuse, sequence, strategies

REVERSING = ("reverse", "anchors")


def scale():
    return torch.linspace(0.5, 1.5, WIDTH, dtype=torch.float64).requires_grad_()


class Attribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.scale = scale()

    def forward(self, x):
        return self.layer(x) * self.scale

    def hidden(self):
        return [self.scale]


class InAList(Attribute):
    def __init__(self):
        super().__init__()
        self.scales = [scale(), scale()]

    def forward(self, x):
        return self.layer(x) * self.scales[0] + self.scales[1]

    def hidden(self):
        return self.scales


class BufferWithGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("scale", scale())

    def forward(self, x):
        return self.layer(x) * self.scale

    def hidden(self):
        return [self.scale]


class UnregisteredModule(nn.Module):
    """Holds a layer that PyTorch does not know of."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(WIDTH, WIDTH).double()]

    def forward(self, x):
        return self.layers[0](x)

    def hidden(self):
        return list(self.layers[0].parameters())


class Closure(nn.Module):
    def __init__(self):
        super().__init__()
        held = self._hidden = (scale(),)
        self.function = lambda x: torch.tanh(x) * held[0]

    def __deepcopy__(self, memo):
        return type(self)()

    def forward(self, x):
        return self.function(x)

    def hidden(self):
        return list(self._hidden)


class PlainLayerWithAWeightOfItsOwn(nn.Module):
    """As sharding and old weight norm do: the weight is an attribute, no parameter."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False))
        weight = self.inner[0].weight.detach().double().requires_grad_()
        del self.inner[0].weight
        self.inner[0].weight = weight

    def forward(self, x):
        return self.inner(x)

    def hidden(self):
        return [self.inner[0].weight]


LEAVES = (Attribute, InAList, BufferWithGradient, UnregisteredModule, Closure, PlainLayerWithAWeightOfItsOwn)


def train_hidden(net, x):
    out = net(x)
    loss_of(out).backward()
    hidden = [t for unit in net.blocks for fn in (unit.f, unit.g) for t in fn.hidden()]
    assert hidden
    return {
        "output": out.detach(),
        **{f"hidden {i}": t.grad for i, t in enumerate(hidden)},
        **gradients(net, x),
    }


@strategies
@pytest.mark.parametrize("kind", LEAVES)
def test_leaves(kind, strategy):
    torch.manual_seed(0)
    judge(sequence(kind), batch(3, 2 * WIDTH), strategy, train_hidden)


@strategies
@pytest.mark.parametrize("kind", LEAVES)
def test_leaves_by_autograd_grad(kind, strategy):
    def step(net, x):
        hidden = [t for unit in net.blocks for fn in (unit.f, unit.g) for t in fn.hidden()]
        found = torch.autograd.grad(loss_of(net(x)), [x, *hidden])
        assert all(t.grad is None for t in hidden)
        return {str(i): g for i, g in enumerate(found)}

    torch.manual_seed(0)
    judge(sequence(kind), batch(3, 2 * WIDTH), strategy, step)


GLOBAL = nn.Parameter(torch.linspace(-1, 1, WIDTH, dtype=torch.float64))


class ReadsAGlobal(nn.Module):
    def forward(self, x):
        return torch.tanh(x * GLOBAL)


@strategies
def test_a_global_parameter_read_by_every_unit(strategy):
    def step(net, x):
        GLOBAL.grad = None
        loss_of(net(x)).backward()
        return {"global": GLOBAL.grad.clone(), **gradients(net, x)}

    net = ReversibleSequence([ReversibleBlock(ReadsAGlobal(), nn.Linear(WIDTH, WIDTH)) for _ in range(3)])
    judge(net.double(), batch(3, 2 * WIDTH), strategy, step)


class Given(nn.Module):
    """Reads a tensor that a step gives it."""

    given = None

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.layer(x) * self.given


def give(net, tensor):
    for unit in net.blocks:
        unit.f.given = unit.g.given = tensor


HOLDERS = {"attribute": lambda t: t, "list": lambda t: [t], "dictionary": lambda t: {"t": t}}


@strategies
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_another_network_computed_and_a_module_holds(holder, strategy):
    """A hypernetwork, or an encoder for cross-attention."""

    class Holds(Given):
        def forward(self, x):
            held = self.given
            held = held["t"] if holder == "dictionary" else held[0] if holder == "list" else held
            return self.layer(x) * held

    def step(net, x):
        w = torch.linspace(0, 1, WIDTH, dtype=x.dtype, requires_grad=True)
        for _ in range(2):
            give(net, HOLDERS[holder]((w * 2).sin()))
            loss_of(net(x)).backward()
        return {"given": w.grad, **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(Holds), batch(3, 2 * WIDTH), strategy, step)


@strategies
def test_what_another_network_computed_and_a_closure_holds_is_refused(strategy):
    class Calls(Given):
        def forward(self, x):
            return self.layer(x) * self.given()

    def step(net, x):
        w = torch.linspace(0, 1, WIDTH, dtype=x.dtype, requires_grad=True)
        computed = (w * 2).sin()
        give(net, lambda: computed)
        loss_of(net(x)).backward()
        return {"given": w.grad, **gradients(net, x)}

    torch.manual_seed(0)
    net, x = sequence(Calls), batch(3, 2 * WIDTH)
    if strategy == "checkpoint":
        judge(net, x, strategy, step)
    else:
        refuse(
            net,
            x,
            strategy,
            step,
            match=r"F of unit 0 reads a tensor .* SinBackward",
            error=OutsideTensorError,
        )


@strategies
def test_the_input_of_the_network_read_by_every_unit(strategy):
    def step(net, x):
        c = torch.linspace(0, 1, WIDTH, dtype=x.dtype, requires_grad=True)
        give(net, c)
        loss_of(net(x)).backward()
        return {"given": c.grad, **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(Given), batch(3, 2 * WIDTH), strategy, step)


@strategies
def test_a_tensor_without_a_gradient_is_read_as_it_is(strategy):
    def step(net, x):
        give(net, torch.linspace(0, 1, WIDTH, dtype=x.dtype))
        loss_of(net(x)).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(Given), batch(3, 2 * WIDTH), strategy, step)


@pytest.mark.parametrize("strategy", REVERSING)
@pytest.mark.parametrize("change", ["in place", "replaced"])
def test_a_leaf_that_changes_before_the_backward_pass(change, strategy):
    def step(net, x):
        c = torch.linspace(0, 1, WIDTH, dtype=x.dtype, requires_grad=True)
        give(net, c)
        loss = loss_of(net(x))
        if change == "in place":
            with torch.no_grad():
                c.add_(1)
        else:
            give(net, torch.ones(WIDTH, dtype=x.dtype, requires_grad=True))
        loss.backward()
        return {}

    refuse(sequence(Given), batch(3, 2 * WIDTH), strategy, step, match="G of unit 2", error=ReplayError)


@strategies
def test_weights_from_a_functional_call_are_right_or_refused(strategy):
    def step(net, x):
        names = [n for n, _ in net.named_parameters()]
        weights = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
        loss_of(functional_call(net, weights, (x,))).backward()
        return {n: weights[n].grad for n in names}

    torch.manual_seed(0)
    net = sequence(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()))
    try:
        judge(net, batch(3, 2 * WIDTH), strategy, step)
    except ReplayError as error:
        assert "between forward and backward" in str(error)


class WithAuxiliaryLoss(nn.Module):
    """As a mixture of experts or a vector quantizer does."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.loss = None

    def forward(self, x):
        h = self.layer(x)
        self.loss = h.square().mean()
        return torch.tanh(h)


def with_auxiliary_losses(net, x):
    out = net(x)
    (loss_of(out) + sum(fn.loss for unit in net.blocks for fn in (unit.f, unit.g))).backward()
    return gradients(net, x)


@strategies
def test_auxiliary_losses_are_right_or_refused(strategy):
    torch.manual_seed(0)
    net, x = sequence(WithAuxiliaryLoss), batch(3, 2 * WIDTH)
    if strategy == "checkpoint":
        judge(net, x, strategy, with_auxiliary_losses)
    else:
        refuse(net, x, strategy, with_auxiliary_losses, match="has kept", error=KeptTensorError)


@strategies
@pytest.mark.parametrize("which", ["f", "g"])
@pytest.mark.parametrize("target", ["input", "first parameter", "parameter of F"])
def test_auxiliary_losses_differentiated_by_one_tensor_alone(target, which, strategy):
    """No path of the kept graph leads to what is asked for, and still nothing is lost in silence."""

    def step(net, x):
        loss = loss_of(net(x)) + getattr(net.blocks[2], which).loss
        wanted = {
            "input": x,
            "first parameter": net.blocks[0].f.layer.weight,
            "parameter of F": net.blocks[2].f.layer.weight,
        }[target]
        return {"gradient": torch.autograd.grad(loss, wanted)[0]}

    torch.manual_seed(0)
    net, x = sequence(WithAuxiliaryLoss), batch(3, 2 * WIDTH)
    if strategy == "checkpoint":
        judge(net, x, strategy, step)
    else:
        refuse(net, x, strategy, step, match="has kept", error=KeptTensorError)


@strategies
def test_auxiliary_losses_that_nobody_differentiates_are_those_of_stored_mode(strategy):
    def step(net, x):
        loss_of(net(x)).backward()
        losses = {f"{i}": fn.loss.detach() for i, unit in enumerate(net.blocks) for fn in (unit.f,)}
        return {**losses, **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(WithAuxiliaryLoss), batch(3, 2 * WIDTH), strategy, step)


@pytest.mark.parametrize("strategy", REVERSING)
@pytest.mark.parametrize("how", ["sum", "linear"])
def test_what_a_hook_inside_keeps_is_refused_in_a_loss(how, strategy):
    """Also where its graph would have saved nothing, so that it could be walked through to no effect."""

    def step(net, x):
        kept = []
        net.blocks[1].f[0].register_forward_hook(
            lambda _, args, out: kept.append(args[0] if how == "sum" else out)
        )
        out = net(x)
        (loss_of(out) + kept[0].sum()).backward()
        return gradients(net, x)

    net = sequence(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()))
    refuse(net, batch(3, 2 * WIDTH), strategy, step, match="F of unit 1 has kept", error=KeptTensorError)


@strategies
def test_a_regularizer_of_parameters_computed_inside_is_right_or_refused(strategy):
    class Regularized(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            self.penalty = self.layer.weight.sum()
            return self.layer(x)

    def step(net, x):
        out = net(x)
        (loss_of(out) + sum(unit.f.penalty for unit in net.blocks)).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    with contextlib.suppress(KeptTensorError):
        judge(sequence(Regularized), batch(3, 2 * WIDTH), strategy, step)
