"""i-RevNet: the authors' networks, their equation, every guarantee, and images rebuilt from features."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from revmodels import Precision, create_model, measure
from revmodels.errors import ResolutionError, WidthError
from revmodels.models.irevnet import depth_to_space, space_to_depth
from revmodels.testing.check import check_reversible

FP64 = Precision(compute="fp64", stream="fp64")


def small(**arguments):
    torch.manual_seed(0)
    return create_model("irevnet", **{"num_classes": 3, "depth": 38, "width": 0.5, **arguments})


def layer_rules(blocks, channels, classes, first):
    """Parameters by the authors' code: three 3x3 convolutions a block, a quarter of the channels inside."""
    total, c_in, is_first = 0, first, True
    for count, c in zip(blocks, channels, strict=True):
        for _ in range(count):
            inner = c // 4
            total += (
                9 * (c_in * inner + inner * inner + inner * c) + 4 * inner + (0 if is_first else 2 * c_in)
            )
            c_in, is_first = c, False
    return total + 4 * c_in + 2 * c_in * classes + classes


@pytest.mark.parametrize(
    ("name", "classes", "count", "rules"),
    [
        ("irevnet", 10, 6_274_826, ((18, 18, 18), (16, 64, 256), 10, 16)),
        ("irevnet", 100, 6_320_996, ((18, 18, 18), (16, 64, 256), 100, 16)),
        ("irevnet302", 1000, 125_120_356, ((6, 16, 72, 6), (24, 96, 384, 1536), 1000, 6)),
    ],
)
def test_parameter_counts(name, classes, count, rules):
    with torch.device("meta"):
        model = create_model(name, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == count == layer_rules(*rules)


@pytest.mark.parametrize(("name", "size", "channels"), [("irevnet", 32, 512), ("irevnet302", 224, 3072)])
def test_shapes_and_bijection(name, size, channels):
    with FakeTensorMode():
        model = create_model(name, num_classes=10)
        images = torch.empty(2, 3, size, size)
        features = model.features(images)
        assert model(images).shape == (2, 10)
    factor = model.architecture.layouts[-1]
    assert features.shape == (2, channels, size // factor, size // factor)
    # Onto as well where nothing is padded: as many numbers leave as enter.
    assert (features.numel() == images.numel()) == (name == "irevnet302")
    assert model.depth == {"irevnet": 2 + 3 * 54, "irevnet302": 2 + 3 * 100}[name]


def test_every_guarantee():
    report = check_reversible(small(), torch.randn(3, 3, 8, 8), tolerance=1e-11)
    assert all(f.outcome == "holds" for f in report.findings)
    assert len(report["inverse"].figures) == 6, "no unit stores its input, not even at a change of resolution"


class AuthorsBlock(nn.Module):
    """(x1, x2) to (S x2, S x1 + F(x2)), equation 1 of the paper, on activations in their own layout."""

    def __init__(self, fn, stride):
        super().__init__()
        layers = [m for m in fn if isinstance(m, nn.BatchNorm2d | nn.ReLU | nn.Conv2d)]
        self.fn, self.stride = nn.Sequential(*layers), stride

    def forward(self, x1, x2):
        y1 = self.fn(x2)
        if self.stride > 1:
            x1, x2 = space_to_depth(x1, self.stride), space_to_depth(x2, self.stride)
        return x2, x1 + y1


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_equals_the_paper_s_blocks_one_by_one(stem):
    """Carrying the streams in the last layout changes nothing."""
    model = small(stem=stem, width=1.0 if stem == "cifar" else 2.0, precision=FP64)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    architecture = model.architecture
    entries = {sum(architecture.units[:i]): stride for i, stride in enumerate(architecture.strides)}
    padded = F.pad(x, (0, 0, 0, 0, 0, architecture.room(model.width) - 3))
    pair = (padded, padded) if stem == "cifar" else space_to_depth(padded, 2).chunk(2, 1)
    for i, unit in enumerate(model.body.units()):
        for fn, stride in ((unit.f, entries.get(i, 1)), (unit.g, 1)):
            pair = AuthorsBlock(fn, stride)(*pair)
    for found, y in zip(model.features(x).chunk(2, 1), pair, strict=True):
        torch.testing.assert_close(found, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_images_follow_from_features(stem):
    model = small(stem=stem, width=2.0, precision=FP64)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        rebuilt = model.inverse(model.features(x))
    torch.testing.assert_close(rebuilt, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strategy", ["reverse", "checkpoint"])
def test_strategies_equal_the_stored_twin(strategy):
    model, x = small(precision=FP64), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model.strategy = "store"
    exact = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model.strategy = strategy
    found = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for a, b in zip(exact, found, strict=True):
        assert (a - b).norm() <= 1e-11 * a.norm()


def test_only_the_last_pair_is_stored_however_deep():
    batch = torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long)
    shallow, deep = (measure.peak_memory(small(depth=depth), batch) for depth in (38, 74))
    assert shallow.saved_bytes == deep.saved_bytes
    assert shallow.activation_bytes == deep.activation_bytes
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        model = small()
        model.features(batch[0])
    assert saved == [(4, 128, 4, 4)] * 2


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_space_to_depth_moves_every_pixel_once(factor):
    x = torch.arange(2 * 3 * 8 * 4.0).view(2, 3, 8, 4)
    y = space_to_depth(x, factor)
    assert y.shape == (2, 3 * factor**2, 8 // factor, 4 // factor)
    assert torch.equal(y.flatten().sort().values, x.flatten())
    assert torch.equal(depth_to_space(y, factor), x)
    assert torch.equal(y[:, :3], x[..., ::factor, ::factor]), (
        "the first channels are the first pixel of each square"
    )


@pytest.mark.parametrize(
    ("stem", "in_channels", "width", "words"),
    [
        (
            "imagenet",
            3,
            1.0,
            r"image's 3 channels; .* imagenet stem has room for 2 at width 1.0. Use at least 1.5",
        ),
        (
            "cifar",
            6,
            0.25,
            r"image's 6 channels; .* cifar stem has room for 4 at width 0.25. Use at least 0.375",
        ),
    ],
)
def test_width_without_room_for_the_image_is_named_with_the_remedy(stem, in_channels, width, words):
    arguments = {"num_classes": 3, "depth": 20, "stem": stem, "in_channels": in_channels}
    with pytest.raises(WidthError, match=words):
        create_model("irevnet", width=width, **arguments)
    enough = float(words.rsplit(" ", 1)[1])
    assert create_model("irevnet", width=enough, **arguments).architecture.room(enough) >= in_channels


def test_image_that_cannot_be_rearranged_is_named():
    with pytest.raises(ResolutionError, match="multiples of 4; received 10 x 8"):
        small()(torch.randn(2, 3, 10, 8))
