"""Residual functions evaluated for their gradients alone."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from revmodels import ReversibleBlock, ReversibleSequence, create_model
from revmodels.engine.kept_outputs import without_value

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (5, 6)),
    "linear over tokens": (lambda: nn.Linear(6, 4, bias=False), (2, 5, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3, stride=2, dilation=2), (2, 6, 11)),
    "conv2d": (lambda: nn.Conv2d(6, 4, 3, padding=1, bias=False), (2, 6, 5, 7)),
    "conv2d of groups": (
        lambda: nn.Conv2d(6, 4, (3, 1), stride=(2, 1), padding=(0, 2), groups=2),
        (2, 6, 5, 7),
    ),
    "conv2d without a batch": (lambda: nn.Conv2d(6, 4, 3), (6, 5, 7)),
    "conv3d": (lambda: nn.Conv3d(6, 4, 3, padding=1), (2, 6, 3, 4, 5)),
}


def run(function, x, d):
    x = x.clone().requires_grad_()
    out = function(x)
    out.backward(d(out))
    return out, x.grad


@pytest.mark.parametrize(
    ("name", "channels_last"),
    [(n, False) for n in LAYERS] + [(n, True) for n in LAYERS if len(LAYERS[n][1]) == 4],
)
def test_every_gradient_and_the_shape_are_those_of_the_module(name, channels_last):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    module, x = nn.Sequential(nn.Tanh(), make()).double(), torch.randn(shape, dtype=torch.float64)
    if channels_last:
        module, x = (
            module.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )

    def direction(out):
        return torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))

    expected, dx = run(module, x, direction)
    wanted = [p.grad for p in module.parameters()]
    module.zero_grad()
    fast = without_value(module)
    assert fast is not None
    found, d = run(fast, x, direction)
    assert found.shape == expected.shape
    assert found.untyped_storage().nbytes() <= 8
    torch.testing.assert_close(d, dx, rtol=1e-12, atol=1e-12)
    for p, g in zip(module.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-12, atol=1e-12)


def test_a_frozen_weight_gets_no_gradient():
    module = nn.Sequential(nn.Conv2d(3, 3, 1))
    module[0].weight.requires_grad_(False)
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    without_value(module)(x).sum().backward()
    assert module[0].weight.grad is None and module[0].bias.grad is not None and x.grad is not None


class Own(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 4),
        nn.Sequential(),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding="same")),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
        Own(nn.Linear(4, 4)),
    ],
)
def test_other_modules_are_evaluated_as_they_are(module):
    assert without_value(module) is None


@pytest.mark.parametrize("watched", ["module", "last layer"])
def test_hooks_miss_no_call(watched):
    module = nn.Sequential(nn.Linear(4, 4))
    (module if watched == "module" else module[0]).register_forward_hook(lambda *_: None)
    assert without_value(module) is None


def test_under_autocast_the_layer_itself_runs():
    module, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(without_value(module)(x), module(x))


class Products(TorchDispatchMode):
    """Counts evaluations of linear layers and convolutions, not their gradients."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.addmm.default, torch.ops.aten.convolution.default)
        return func(*args, **(kwargs or {}))


def count_products(net, x):
    with Products() as products:
        net(x).sum().backward()
    return products.count


def test_a_unit_that_keeps_its_input_saves_one_product_of_each_residual_function():
    def branch():
        return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    net = ReversibleSequence([ReversibleBlock(branch(), branch()) for _ in range(3)])
    x = torch.randn(5, 16, requires_grad=True)
    rebuilt = count_products(net, x)
    net.anchor_every = 1  # every unit but the first
    assert rebuilt == 2 * 3 * 4
    assert count_products(net, x) == rebuilt - 2 * 2


def test_stage_entries_save_theirs():
    model = create_model("revnet38", num_classes=10, depth=26, width=0.25)
    twin = create_model("revnet38", num_classes=10, depth=26, width=0.25)
    for unit in twin.body.units():
        if not unit.has_inverse:
            for fn in (unit.f, unit.g):
                fn.register_forward_hook(lambda *_: None)
    images = torch.randn(2, 3, 16, 16)
    assert count_products(twin, images) - count_products(model, images) == 2 * 3
