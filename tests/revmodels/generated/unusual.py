"""Layers that reach beyond their input and registered parameters: state, closures, randomness of their own.

A run asks every layer of a network for the following, where it has them:

- ``prepare()``: what is computed before every call, such as a hypernetwork's output;
- ``others()``: tensors that need a gradient and are no registered parameters;
- ``kept``: tensors that the last call kept besides its result, and that join the loss;
- ``change()``: changes the state that the layer computes by.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations, parametrize

from tests.revmodels.generated.ordinary import FLAT, KINDS, SPATIAL, WIDTH, Apply, Make, Moved, Stream


def _leaf(*shape: int) -> Tensor:
    return (torch.randn(shape, dtype=torch.float64) * 0.3).requires_grad_()


class HeldTensor(nn.Module):
    """A tensor that needs a gradient, held as a plain attribute or in a list."""

    def __init__(self, s: Stream, *, in_list: bool = False) -> None:
        super().__init__()
        t = _leaf(*s.shape)
        self.held = [t] if in_list else t

    def others(self) -> list[Tensor]:
        return self.held if isinstance(self.held, list) else [self.held]

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.others()[0].to(x.dtype)).sin()


class Closure(nn.Module):
    """A function that has closed over a tensor that needs a gradient."""

    def __init__(self, s: Stream) -> None:
        super().__init__()
        t = _leaf(*s.shape)
        self.others = lambda: [t]
        self.fn = lambda x: x.sin() * t.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


class Hypernetwork(nn.Module):
    """A weight that a small network of its own makes before every call."""

    def __init__(self, *, registered: bool) -> None:
        super().__init__()
        maker = nn.Linear(2, WIDTH)
        self.held = [maker.double()]
        if registered:
            self.maker = self.held[0]
        self.weight = None

    def prepare(self) -> None:
        maker = self.held[0]
        self.weight = maker(torch.ones(2, dtype=maker.weight.dtype))

    def others(self) -> list[Tensor]:
        return list(self.held[0].parameters())

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(-1, 0).tanh().movedim(0, -1) * self.weight.to(x.dtype)[: x.shape[-1]]


class GradBuffer(nn.Module):
    """A buffer that needs a gradient."""

    def __init__(self, s: Stream) -> None:
        super().__init__()
        self.register_buffer("b", _leaf(*s.shape))

    def others(self) -> list[Tensor]:
        return [self.b]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b.sin()


class AuxiliaryLoss(nn.Module):
    """Keeps a loss of its input besides its result, as mixtures of experts do."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = x.abs().square().mean()
        return x.sin()


class KeepsLast(nn.Module):
    """Keeps its input for somebody who looks at it afterwards, without a gradient."""

    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.detach()
        return x.cos()


class Mask(nn.Module):
    """Multiplies by a mask that is set as an attribute."""

    def __init__(self, s: Stream) -> None:
        super().__init__()
        self.mask = torch.rand(s.shape) > 0.3

    def change(self) -> None:
        self.mask = ~self.mask

    def forward(self, x: Tensor) -> Tensor:
        return x.sin() * self.mask


class Scale(nn.Module):
    """Multiplies by a plain number that is set as an attribute."""

    scale = 0.7

    def change(self) -> None:
        self.scale = 1.3

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() * self.scale


class FixedBuffer(nn.Module):
    """Multiplies by a buffer, which somebody may overwrite."""

    def __init__(self, s: Stream) -> None:
        super().__init__()
        self.register_buffer("b", torch.rand(s.shape))

    def change(self) -> None:
        self.b.mul_(1.5)

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() + self.b


class PythonRandom(nn.Module):
    """Draws from Python's generator."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() * random.random()


class OwnGenerator(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def __deepcopy__(self, memo: dict) -> OwnGenerator:
        return OwnGenerator()

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() * torch.rand(x.shape, generator=self.generator)


class Counter(nn.Module):
    """Computes something else at every call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.tanh() * (1 + self.calls)


class RunningMean(nn.Module):
    """Subtracts a running mean, which is its own affair and moves in every call in training mode."""

    def __init__(self, s: Stream, *, replaced: bool) -> None:
        super().__init__()
        self.replaced = replaced
        self.register_buffer("mean", torch.zeros(s.shape))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            new = self.mean + 0.1 * (x.detach().to(self.mean.dtype) - self.mean)
            if self.replaced:
                self.mean = new
            else:
                self.mean.copy_(new)
        return x.tanh() - self.mean


class FrozenFunctional(nn.Module):
    """Calls a layer with weights computed from its own, as adapters and meta-learning do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.shift = nn.Parameter(torch.randn(WIDTH, WIDTH) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return functional_call(self.layer, {"weight": self.layer.weight + self.shift}, (x,))


class Skew(nn.Module):
    """The skew-symmetric part, twice."""

    def forward(self, w: Tensor) -> Tensor:
        return w - w.T


class Cached(nn.Module):
    """A layer whose weight is computed once for its two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        parametrize.register_parametrization(self.layer, "weight", Skew())

    def forward(self, x: Tensor) -> Tensor:
        with parametrize.cached():
            return self.layer(self.layer(x))


class Router(nn.Module):
    """Sends each position to one of two experts, chosen by their input."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.gate = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        p, chosen = self.gate(x).softmax(-1).max(-1, keepdim=True)
        return p * torch.where(chosen == 0, self.experts[0](x), self.experts[1](x))


class Quantizer(nn.Module):
    """Nearest of a few learnt codes, with a straight-through gradient and a commitment loss."""

    kept: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(5, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        nearest = self.codes[torch.cdist(x.reshape(-1, WIDTH), self.codes).argmin(1)].view_as(x)
        self.kept = (nearest - x.detach()).square().mean() + (nearest.detach() - x).square().mean()
        return x + (nearest - x).detach()


GLOBAL: list[nn.Parameter] = []
"""A parameter that belongs to no module; every run makes its own."""


def _global_scale(x: Tensor) -> Tensor:
    return x.sin() * GLOBAL[0].to(x.dtype)


def _per_example(x: Tensor, layer: nn.Linear) -> Tensor:
    return vmap(lambda row: (row @ layer.weight).tanh())(x.reshape(-1, WIDTH)).view_as(x)


def _instance_norm(s: Stream) -> nn.Module:
    return nn.InstanceNorm2d(WIDTH, affine=True, track_running_stats=True)


def _average_norm(s: Stream) -> nn.Module:
    norm = nn.BatchNorm1d if s.kind != "image" else nn.BatchNorm2d
    layer = norm(WIDTH, momentum=None)
    return Moved(layer, 2, 1) if s.kind == "tokens" else layer


def _tied(s: Stream) -> nn.Module:
    """Two layers that hold one weight under two names."""
    a, b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    b.weight = a.weight
    return nn.Sequential(a, nn.Tanh(), b)


def _two_names(s: Stream) -> nn.Module:
    layer = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(layer, nn.Tanh(), layer)


def _frozen_part(s: Stream) -> nn.Module:
    layer = nn.Linear(WIDTH, WIDTH)
    layer.weight.requires_grad_(False)
    return layer


def _encoder(s: Stream) -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 6, dropout=0.0, batch_first=True)
    mask = torch.tensor([[False, False, True]])
    return Apply(
        lambda x, e: e(x, src_key_padding_mask=mask.expand(x.shape[0], -1)),
        nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval(),
    )


def _named(call: Callable[[], nn.Module]) -> Make:
    return lambda s: call()


UNUSUAL: dict[str, tuple[tuple[str, ...], Make]] = {
    "held tensor": (KINDS, HeldTensor),
    "tensor in a list": (KINDS, lambda s: HeldTensor(s, in_list=True)),
    "closure": (KINDS, Closure),
    "hypernetwork": (FLAT, lambda s: Hypernetwork(registered=True)),
    "foreign hypernetwork": (FLAT, lambda s: Hypernetwork(registered=False)),
    "buffer with gradient": (KINDS, GradBuffer),
    "global parameter": (KINDS, lambda s: Apply(_global_scale)),
    "auxiliary loss": (KINDS, _named(AuxiliaryLoss)),
    "quantizer": (FLAT, _named(Quantizer)),
    "keeps its input": (KINDS, _named(KeepsLast)),
    "mask": (KINDS, Mask),
    "scale": (KINDS, _named(Scale)),
    "buffer": (KINDS, FixedBuffer),
    "Python's random": (KINDS, _named(PythonRandom)),
    "own generator": (KINDS, _named(OwnGenerator)),
    "counter": (KINDS, _named(Counter)),
    "running mean": (KINDS, lambda s: RunningMean(s, replaced=False)),
    "running mean, replaced": (KINDS, lambda s: RunningMean(s, replaced=True)),
    "spectral norm": (FLAT, lambda s: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))),
    "spectral norm by hook": (FLAT, lambda s: nn.utils.spectral_norm(nn.Linear(WIDTH, WIDTH))),
    "spectral convolution": (SPATIAL, lambda s: parametrizations.spectral_norm(nn.Conv2d(WIDTH, WIDTH, 1))),
    "instance norm with statistics": (("image",), _instance_norm),
    "batch norm that averages": (("vector", "tokens", "image"), _average_norm),
    "functional call": (FLAT, _named(FrozenFunctional)),
    "cached parametrization": (FLAT, _named(Cached)),
    "experts": (FLAT, _named(Router)),
    "per example": (FLAT, lambda s: Apply(_per_example, nn.Linear(WIDTH, WIDTH))),
    "tied weights": (FLAT, _tied),
    "one layer twice": (FLAT, _two_names),
    "partly frozen": (FLAT, _frozen_part),
    "encoder with a mask": (("tokens",), _encoder),
}
