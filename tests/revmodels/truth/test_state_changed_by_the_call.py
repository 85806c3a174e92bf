"""What F and G change themselves is as one call leaves it, and the replay finds it as the call did."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
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
    train,
)


def linear():
    return nn.Linear(WIDTH, WIDTH)


class InstanceNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(WIDTH, track_running_stats=True, affine=True)

    def forward(self, x):
        return self.norm(torch.tanh(x))


class OldSpectralNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.utils.spectral_norm(linear())

    def forward(self, x):
        return self.layer(torch.tanh(x))


class RunningMean(nn.Module):
    """Subtracts a mean that every call moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.layer = linear()

    def forward(self, x):
        with torch.no_grad():
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return self.layer(x - self.mean)


class ReplacedBuffer(RunningMean):
    def forward(self, x):
        self.mean = self.mean * 0.9 + x.detach().mean(0) * 0.1
        return self.layer(x - self.mean)


class Counter(nn.Module):
    """Every call scales differently."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.layer = linear()

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * self.calls


class CountsInAList(Counter):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(1.0)
        return self.layer(x) * len(self.seen)


class OneMaskDropout(nn.Module):
    """Keeps its mask for the replay, where the next forward pass overwrites it."""

    mask = None

    def forward(self, x):
        if torch.is_grad_enabled() and self.mask is not None:
            return x * self.mask
        mask = (torch.rand_like(x) > 0.5).to(x.dtype)
        if not torch.is_grad_enabled():
            self.mask = mask
        return x * mask


class PythonRandom(nn.Module):
    """Drops a layer by Python's generator."""

    def __init__(self):
        super().__init__()
        self.layer = linear()

    def forward(self, x):
        return self.layer(x) * (random.random() + 0.5)


class OwnPythonGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear()
        self.source = random.Random(5)

    def forward(self, x):
        return self.layer(x) * (self.source.random() + 0.5)


class OwnNumpyGenerator(OwnPythonGenerator):
    def __init__(self):
        super().__init__()
        self.source = np.random.default_rng(5)


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear()
        self.source = torch.Generator().manual_seed(5)

    def __deepcopy__(self, memo):
        new = type(self)()
        new.load_state_dict(self.state_dict())
        return new.double()

    def forward(self, x):
        noise = torch.rand(x.shape, generator=self.source, dtype=x.dtype)
        return self.layer(x * noise)


def spectral_norm():
    return nn.Sequential(nn.Tanh(), nn.utils.parametrizations.spectral_norm(linear()))


def batch_norm_and_dropout():
    return nn.Sequential(nn.Dropout(0.3), linear(), nn.BatchNorm1d(WIDTH), nn.Tanh())


def nested(make):
    def build():
        half = WIDTH // 2

        class Inner(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = ReversibleSequence([ReversibleBlock(make(half), make(half)) for _ in range(2)])

            def forward(self, x):
                return self.body(x)

        return Inner()

    return build


def normalized(channels):
    return nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, channels))


KINDS = {
    "instance norm": (InstanceNorm, (3, 2 * WIDTH, 5)),
    "spectral norm": (spectral_norm, (3, 2 * WIDTH)),
    "old spectral norm": (OldSpectralNorm, (3, 2 * WIDTH)),
    "running mean": (RunningMean, (3, 2 * WIDTH)),
    "replaced buffer": (ReplacedBuffer, (3, 2 * WIDTH)),
    "counter": (Counter, (3, 2 * WIDTH)),
    "counter in a list": (CountsInAList, (3, 2 * WIDTH)),
    "mask kept": (OneMaskDropout, (3, 2 * WIDTH)),
    "python's generator": (PythonRandom, (3, 2 * WIDTH)),
    "own python generator": (OwnPythonGenerator, (3, 2 * WIDTH)),
    "own numpy generator": (OwnNumpyGenerator, (3, 2 * WIDTH)),
    "own generator": (OwnGenerator, (3, 2 * WIDTH)),
    "batch norm and dropout": (batch_norm_and_dropout, (3, 2 * WIDTH)),
    "nested batch norm": (
        nested(lambda c: nn.Sequential(nn.BatchNorm1d(c), nn.Linear(c, c))),
        (3, 2 * WIDTH),
    ),
    "nested dropout": (nested(lambda c: nn.Sequential(nn.Dropout(0.4), nn.Linear(c, c))), (3, 2 * WIDTH)),
}


def seeded(step):
    def run(net, x):
        random.seed(11)
        found = step(net, x)
        return {**found, "next of python": torch.tensor(random.random())}

    return run


def twice(net, x):
    """Two forward passes, then the backward pass."""
    (loss_of(net(x)) * loss_of(net(x * 0.5))).backward()
    return gradients(net, x)


def steps(net, x):
    """Three training steps, so that what a replay leaves behind would be seen in the next."""
    for _ in range(3):
        loss_of(net(x)).backward()
    return gradients(net, x)


@strategies
@pytest.mark.parametrize("step", [train, twice, steps])
@pytest.mark.parametrize("kind", KINDS)
def test_as_in_stored_mode(kind, step, strategy):
    make, shape = KINDS[kind]
    torch.manual_seed(0)
    judge(sequence(make), batch(*shape), strategy, seeded(step))


@strategies
@pytest.mark.parametrize("kind", ["batch norm and dropout", "nested batch norm", "running mean"])
def test_in_a_sequence_within_a_sequence(kind, strategy):
    """The inner sequence is trained by the same strategy as the outer one."""
    make, shape = KINDS[kind]
    torch.manual_seed(0)

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = sequence(make, 2)

        def forward(self, x):
            return self.body(torch.cat((x, x * 0.5), 1))[:, :WIDTH]

    if strategy == "budget":
        pytest.skip("a budget is planned for one sequence")
    judge(sequence(Inner, 2), batch(*shape), strategy, steps)


@strategies
def test_a_graph_that_is_kept(strategy):
    def step(net, x):
        loss = loss_of(net(x))
        loss.backward(retain_graph=True)
        loss.backward()
        return gradients(net, x)

    for make, shape in KINDS.values():
        torch.manual_seed(0)
        judge(sequence(make), batch(*shape), strategy, seeded(step))


class NumpyRandom(nn.Module):
    def forward(self, x):
        return x * np.random.rand()


class HiddenCounter(nn.Module):
    """Every call scales differently, and nobody can see why."""

    def __init__(self):
        super().__init__()
        self.calls = itertools.count(1)

    def forward(self, x):
        return x * next(self.calls)


class EditsATensor(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.ones(WIDTH, dtype=torch.float64)

    def forward(self, x):
        self.scale.mul_(0.9)
        return x * self.scale


@pytest.mark.parametrize("strategy", ("reverse", "anchors", "checkpoint"))
def test_numpys_global_generator_is_refused(strategy):
    refuse(
        sequence(NumpyRandom),
        batch(3, 2 * WIDTH),
        strategy,
        match="NumPy's global generator",
        error=ReplayError,
    )


@pytest.mark.parametrize("strategy", ("reverse", "anchors", "checkpoint"))
def test_a_tensor_that_is_no_buffer_and_changed_in_place_is_refused(strategy):
    refuse(sequence(EditsATensor), batch(3, 2 * WIDTH), strategy, match="register_buffer", error=ReplayError)


def test_the_judge_can_tell():
    with pytest.raises(AssertionError):
        judge(sequence(HiddenCounter), batch(3, 2 * WIDTH), "reverse")


def test_attributes_are_those_of_the_forward_pass_afterwards():
    net = put(sequence(Counter), "reverse")
    loss_of(net(batch(3, 2 * WIDTH))).backward()
    assert [unit.f.calls for unit in net.blocks] == [1, 1, 1]
