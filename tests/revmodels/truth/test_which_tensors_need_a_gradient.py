"""A stream needs a gradient where it needs one with stored activations, and nowhere else."""

import itertools

import pytest
import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence, StageEntry
from tests.revmodels.truth.judge import WIDTH, batch, gradients, judge, loss_of, strategies


class Watched(nn.Module):
    """A layer that the engine does not know."""

    def forward(self, x):
        return x.sin()


class TellsItsInput(nn.Module):
    """Computes something else where its input needs a gradient, as layers with a fast path do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.layer(x) * (2 if x.requires_grad else 1)


LAYERS = {
    "plain": lambda: nn.Sequential(nn.Tanh()),
    "watched": Watched,
    "trained": lambda: nn.Linear(WIDTH, WIDTH),
    "frozen": lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False),
    "telling": TellsItsInput,
}
PAIRS = (
    ("plain", "plain"),
    ("plain", "trained"),
    ("trained", "plain"),
    ("frozen", "watched"),
    ("watched", "trained"),
    ("telling", "frozen"),
    ("frozen", "telling"),
)


def _network(f, g, *, entry):
    pairs = [(LAYERS[f](), LAYERS[g]()) for _ in range(3)]
    first = StageEntry(*pairs[0], nn.Tanh(), nn.Identity()) if entry else ReversibleBlock(*pairs[0])
    return ReversibleSequence([first, *(ReversibleBlock(*pair) for pair in pairs[1:])]).double()


def _count(fn, number, calls):
    return fn.register_full_backward_hook(lambda m, d_in, d_out: calls.append((number, d_in[0] is None)))


# The hooks are called where a function's input needs no gradient and its parameters do.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients")
@strategies
@pytest.mark.parametrize("entry", [False, True], ids=["blocks", "stage entry"])
@pytest.mark.parametrize(("f", "g"), PAIRS)
def test_streams_of_which_some_need_a_gradient(f, g, entry, strategy):
    """Calls of hooks on the layers, gradients and which outputs need one."""
    torch.manual_seed(0)
    net = _network(f, g, entry=entry)

    def step(net, x):
        found = {}
        functions = [fn for unit in net.blocks for fn in (unit.f, unit.g)]
        # A hook makes a layer one that the engine watches.
        for *needs, hooked in itertools.product([False, True], repeat=3):
            net.zero_grad()
            calls = []
            hooks = [_count(fn, i, calls) for i, fn in enumerate(functions)] if hooked else []
            halves = x.chunk(2, 1)
            streams = [half.clone().requires_grad_(n) for half, n in zip(halves, needs, strict=True)]
            ys = net(*streams)
            if any(y.requires_grad for y in ys):
                loss_of(torch.cat(ys, 1)).backward()
            for hook in hooks:
                hook.remove()
            now = {f"output {i}": y.detach() for i, y in enumerate(ys)} | gradients(net, *streams)
            now |= {f"output {i} needs one": torch.tensor(y.requires_grad) for i, y in enumerate(ys)}
            now["hooks"] = torch.tensor(sorted(calls)).flatten()
            found |= {f"{needs}, hooked {hooked}: {name}": value for name, value in now.items()}
        return found

    judge(net, batch(3, 2 * WIDTH, requires_grad=False), strategy, step)
