"""Blocks and sequences that each break a guarantee, to show that `check_reversible` notices."""

import math
from types import SimpleNamespace

import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
from tests.revmodels.blocks import CHANNELS


class Linear(nn.Linear):
    def __init__(self):
        super().__init__(CHANNELS, CHANNELS)


class Hiding(Linear):
    """Keeps what it counts in an object that nobody can look into."""

    def __init__(self):
        super().__init__()
        self.hidden = SimpleNamespace(calls=0, mask=None)


class Drifting(Hiding):
    """No function of its input: every call scales differently."""

    def forward(self, x):
        self.hidden.calls += 1
        return super().forward(x) * self.hidden.calls


class OneMaskDropout(Hiding):
    """Keeps its dropout mask for the replay: a second forward pass overwrites the first's."""

    def forward(self, x):
        self.hidden.calls += 1
        if self.hidden.mask is None or not x.grad_fn or "Passage" not in x.grad_fn.name():
            self.hidden.mask = (torch.rand_like(x) > 0.5).to(x.dtype)
        return x * self.hidden.mask


class HomemadeNorm(nn.Module):
    """Normalizes by a running mean that is its own affair, and moves in every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.hidden = SimpleNamespace(mean=None)

    def forward(self, x):
        mean = x.mean((0, 1))
        self.hidden.mean = self.mean if self.hidden.mean is None else self.hidden.mean
        with torch.no_grad():
            self.hidden.mean.lerp_(mean.detach(), 0.1)
        return x - mean


class InPlace(Linear):
    """Changes the tensor it is given."""

    def forward(self, x):
        return super().forward(x.add_(1.0))


KEPT: list[torch.Tensor] = []
"""Auxiliary losses that `CollectsLosses` has computed."""


class KeepsLoss(Linear):
    """Leaves an auxiliary loss in an attribute, for whoever trains it."""

    def forward(self, x):
        y = super().forward(x)
        self.loss = y.square().mean()
        return y


class ListsLosses(Linear):
    """Adds its auxiliary loss to a list of its own."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def forward(self, x):
        y = super().forward(x)
        self.losses.append(y.square().mean())
        return y


class HidesLoss(Hiding):
    """Leaves it in an object."""

    def forward(self, x):
        y = super().forward(x)
        self.hidden.loss = y.square().mean()
        return y


class CollectsLosses(Linear):
    """Adds it to a list that all share."""

    def forward(self, x):
        y = super().forward(x)
        KEPT.append(y.square().mean())
        return y


class BranchesOnLastBits(Linear):
    """Turns its result round by the last bit of its input."""

    def forward(self, x):
        y = super().forward(x)
        return y if int(math.frexp(x.detach().sum())[0] * 2**53) % 2 else -y


class Zero(nn.Module):
    """A function whose value is 0 everywhere; nothing is wrong with it."""

    def forward(self, x):
        return x * 0


class BranchesOnEquality(Linear):
    """Scales by how many numbers are multiples of 1/1024: all, where the caller has rounded them."""

    def forward(self, x):
        multiples = (x * 1024 == (x * 1024).round()).to(x.dtype).mean()
        return super().forward(x) * (1 + multiples)


class BranchesOnAddress(Linear):
    """Turns its result round by where its input lies."""

    def forward(self, x):
        y = super().forward(x)
        return y if x.data_ptr() % 128 else -y


class BranchesOnSize(Linear):
    """Takes one of two ways by the sign of a sum far from zero: no rounding error changes it."""

    def forward(self, x):
        y = super().forward(x)
        return y if x.sum() > -1e3 else -y


class WrongInverse(ReversibleBlock):
    """Undoes F before G."""

    def inverse(self, y):
        y1, y2 = y
        x1 = y1 - self.residual(self.f, y2)
        return x1, y2 - self.residual(self.g, x1)


class Wasteful(ReversibleBlock):
    """Evaluates everything twice."""

    def residual(self, fn, x):
        super().residual(fn, x)
        return super().residual(fn, x)


class Pretender(ReversibleSequence):
    """Stores its activations when told to rebuild them."""

    def forward(self, x1, x2):
        for unit in self.units():
            x1, x2 = unit(x1, x2)
        return x1, x2


class DrawsInBackward(ReversibleSequence):
    """Draws random numbers in the backward pass, unless activations are stored."""

    def forward(self, x1, x2):
        y1, y2 = super().forward(x1, x2)
        if self.strategy != "store" and y1.requires_grad:
            y1.register_hook(lambda d: d + 0 * torch.rand(1, dtype=d.dtype))
        return y1, y2


class NeedsInputGradient(ReversibleSequence):
    """Ignores its parameters where the input needs no gradient."""

    def forward(self, x1, x2):
        with torch.set_grad_enabled(self.strategy == "store" or x1.requires_grad):
            return super().forward(x1, x2)


class _Rerun(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sequence, parameters, x1, x2, *returned):
        ctx.sequence, ctx.parameters, ctx.scale = sequence, parameters, 1.0
        ctx.save_for_backward(x1, x2)
        return sequence.through(x1, x2)

    @staticmethod
    def backward(ctx, *dy):
        pair = [x.detach().requires_grad_(True) for x in ctx.saved_tensors]
        with torch.enable_grad():
            y = ctx.sequence.through(*pair)
        if ctx.sequence.by_side_effect:
            torch.autograd.backward(y, dy)
            return None, None, *(x.grad for x in pair)
        found = torch.autograd.grad(y, (*pair, *ctx.parameters), [d * ctx.scale for d in dy])
        if ctx.sequence.one_shot:
            ctx.scale = 0.0
        return None, None, *found


class Naive(ReversibleSequence):
    """Reruns everything in one autograd Function: all gradients come at its end, autocast is lost, statistics
    move again, and a second derivative is not refused."""

    by_side_effect = False
    one_shot = False

    def through(self, x1, x2):
        for unit in self.units():
            x1, x2 = unit(x1, x2)
        return x1, x2

    def forward(self, x1, x2):
        if self.strategy == "store":
            return self.through(x1, x2)
        parameters = tuple(self.parameters())
        return _Rerun.apply(self, parameters, x1, x2, *(() if self.by_side_effect else parameters))


class SideEffects(Naive):
    """Hides its parameters from autograd and fills ``.grad`` by itself."""

    by_side_effect = True


class OneShot(Naive):
    """Returns zeros when a graph is differentiated again."""

    one_shot = True
