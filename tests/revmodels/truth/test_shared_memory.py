"""Memory that somebody else holds is never written to: gradients of several tensors, kept outputs, hooks."""

import pytest
import torch
from torch import nn

from tests.revmodels.truth.judge import WIDTH, batch, gradients, judge, loss_of, sequence, staged, strategies


class AddedToTheInput(nn.Module):
    """A parameter of the input's own shape: autograd hands one tensor to both as their gradient."""

    def __init__(self, *shape):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.p = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return self.layer(x + self.p)


def mlp():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))


@strategies
@pytest.mark.parametrize("build", [sequence, staged])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_parameter_of_the_shape_of_the_input(build, batch_size, strategy):
    torch.manual_seed(0)
    judge(build(lambda: AddedToTheInput(batch_size, WIDTH)), batch(batch_size, 2 * WIDTH), strategy)


@strategies
def test_a_parameter_of_the_shape_of_an_input_without_a_batch(strategy):
    torch.manual_seed(0)
    judge(sequence(lambda: AddedToTheInput(WIDTH), dim=0), batch(2 * WIDTH), strategy)


class Summed(nn.Module):
    """Its gradient is one number seen from many places, which cannot be added to."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return self.scale * x.sum(-1, keepdim=True).expand_as(x)


@strategies
def test_a_gradient_that_is_one_number_seen_from_many_places(strategy):
    judge(sequence(Summed), batch(3, 2 * WIDTH), strategy)


@strategies
def test_gradients_kept_by_backward_hooks_of_modules(strategy):
    def step(net, x):
        kept = []
        for name, module in net.named_modules():
            if name.endswith((".f", ".g")):
                module.register_full_backward_hook(
                    lambda _, d_in, d_out, name=name: kept.append((name, d_in[0], d_out[0]))
                )
        loss_of(net(x)).backward()
        return {
            **{f"{name} {i}": d for name, *both in kept for i, d in enumerate(both)},
            **gradients(net, x),
        }

    torch.manual_seed(0)
    judge(sequence(lambda: AddedToTheInput(1, WIDTH)), batch(1, 2 * WIDTH), strategy, step)


@strategies
def test_gradients_kept_by_hooks_of_tensors_inside(strategy):
    kept = []

    class Hooked(AddedToTheInput):
        def forward(self, x):
            h = x + self.p
            if h.requires_grad:
                h.register_hook(kept.append)
            return self.layer(h)

    def step(net, x):
        kept.clear()
        loss_of(net(x)).backward()
        return {**{f"kept {i}": d for i, d in enumerate(kept)}, **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(lambda: Hooked(1, WIDTH)), batch(1, 2 * WIDTH), strategy, step)


@strategies
@pytest.mark.parametrize("build", [sequence, staged])
def test_outputs_of_units_kept_by_forward_hooks(build, strategy):
    """Features, as a detector or a distillation reads them, are the same after the backward pass."""

    def step(net, x):
        kept = {}
        for i, unit in enumerate(net.blocks):
            unit.register_forward_hook(lambda _, __, pair, i=i: kept.update({i: torch.stack(pair)}))
            unit.register_forward_hook(
                lambda _, __, pair, i=i: kept.update({(i, k): y for k, y in enumerate(pair)})
            )
        loss_of(net(x)).backward()
        return {**{f"kept {i}": y.detach() for i, y in kept.items()}, **gradients(net, x)}

    torch.manual_seed(0)
    judge(build(mlp, 5), batch(3, 2 * WIDTH), strategy, step)


@strategies
def test_deep_supervision(strategy):
    """A loss on what every unit returns, beside that on the output."""

    def step(net, x):
        kept = []
        for unit in net.blocks:
            unit.register_forward_hook(lambda _, __, pair: kept.extend(pair))
        out = net(x)
        # A checkpoint calls the hooks of what it recomputes again.
        joined = tuple(kept)
        (loss_of(out) + sum(loss_of(y) for y in joined)).backward()
        return {**{f"kept {i}": y.detach() for i, y in enumerate(joined)}, **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(mlp, 5), batch(3, 2 * WIDTH), strategy, step)


@strategies
def test_what_a_log_of_saved_tensors_holds_stays_as_it_is(strategy):
    def step(net, x):
        log = []

        def pack(t):
            log.append((t, t.clone()))
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss_of(net(x)).backward()
        assert log
        changed = sum(not torch.equal(t, copy) for t, copy in log)
        return {"changed": torch.tensor(changed), **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(mlp, 5), batch(3, 2 * WIDTH), strategy, step)


@strategies
def test_inputs_of_f_and_g_kept_by_forward_hooks_of_theirs(strategy):
    def step(net, x):
        kept = []
        for unit in net.blocks:
            for fn in (unit.f, unit.g):
                fn.register_forward_hook(
                    lambda _, args, out: kept.extend((t.detach(), t.detach().clone()) for t in (*args, out))
                )
        loss_of(net(x)).backward()
        changed = sum(not torch.equal(t, copy) for t, copy in kept)
        return {"changed": torch.tensor(changed), **gradients(net, x)}

    torch.manual_seed(0)
    judge(sequence(mlp, 5), batch(3, 2 * WIDTH), strategy, step)


@strategies
def test_streams_shown_to_an_observer_stay_as_they_are(strategy):
    if strategy in ("checkpoint", "budget"):
        pytest.skip("an observer is shown what is rebuilt")
    torch.manual_seed(0)
    net = sequence(mlp, 5)
    net.anchor_every = 2 if strategy == "anchors" else None
    seen = []
    net.observer = lambda _, *pair: seen.extend((x, x.clone()) for x in pair)
    loss_of(net(batch(3, 2 * WIDTH))).backward()
    assert len(seen) == 2 * 5
    assert all(torch.equal(x, copy) for x, copy in seen)
