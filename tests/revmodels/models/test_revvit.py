"""Rev-ViT: the paper's sizes, every guarantee, flat memory, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from revmodels import Precision, create_model, measure
from revmodels.errors import DepthError, ResolutionError, WidthError
from revmodels.models.architecture import HEAD_CHANNELS
from revmodels.models.revvit import Attention, PatchEmbedding
from revmodels.testing.check import check_reversible

FP64 = Precision(compute="fp64", stream="fp64")


def tiny(**arguments):
    torch.manual_seed(0)
    settings = {"num_classes": 3, "depth": 3, "width": 1 / 6, "stem": "cifar"}
    return create_model("revvit_small", **{**settings, **arguments})


def layer_rules(d, blocks, classes, patch=16, image=224):
    """Parameters of a vision transformer without class token, whose head sees both streams."""
    norm, tokens = 2 * d, (image // patch) ** 2
    attention = norm + (3 * d * d + 3 * d) + (d * d + d)
    mlp = norm + (4 * d * d + 4 * d) + (4 * d * d + d)
    stem = 3 * patch * patch * d + d + tokens * d
    return stem + blocks * (attention + mlp) + 2 * 2 * d + 2 * d * classes + classes


@pytest.mark.parametrize(
    ("name", "d", "count"), [("revvit_small", 384, 22_434_664), ("revvit_base", 768, 87_335_656)]
)
def test_parameter_counts(name, d, count):
    """The paper's Rev-ViT-S and Rev-ViT-B have 22 and 87 million (Mangalam et al., table 1)."""
    with torch.device("meta"):
        model = create_model(name, num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == count == layer_rules(d, 12, 1000)


@pytest.mark.parametrize("name", ["revvit_small", "revvit_base"])
def test_paper_sizes_classify_images_of_224_pixels(name):
    with FakeTensorMode():
        model = create_model(name, num_classes=1000)
        assert (model.family, model.block, model.depth, model.strategy) == (
            "revvit",
            "transformer",
            12,
            "reverse",
        )
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)


def test_every_guarantee():
    report = check_reversible(tiny(), torch.randn(3, 3, 16, 16))
    inapplicable = [f.guarantee for f in report.findings if f.outcome != "holds"]
    # No batch norm, and PyTorch's fused attention has no second derivative.
    assert inapplicable == ["double_backward", "statistics_once"]
    assert len(report["inverse"].figures) == 3, "no block stores its input"


@pytest.mark.parametrize("strategy", ["reverse", "checkpoint", "budget"])
def test_strategies_equal_the_stored_twin(strategy):
    model, x = tiny(depth=4, precision=FP64), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    model.strategy = "store"
    exact = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    if strategy == "budget":
        batch = x, torch.zeros(4, dtype=torch.long)
        stored = measure.peak_memory(model, batch).activation_bytes
        model.strategy = "reverse"
        model.memory_budget_bytes = (stored + measure.peak_memory(model, batch).activation_bytes) // 2
    model.strategy = strategy
    found = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for a, b in zip(exact, found, strict=True):
        assert (a - b).norm() <= 1e-12 * a.norm()
    if strategy == "budget":
        modes = set(model.memory_plan().modes)
        assert "store" in modes and len(modes) > 1


def test_activation_memory_does_not_grow_with_depth():
    batch = torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long)
    flat = [measure.peak_memory(tiny(depth=n), batch).activation_bytes for n in (2, 4, 8)]
    stored = [measure.peak_memory(tiny(depth=n, strategy="store"), batch).activation_bytes for n in (2, 4, 8)]
    assert flat[0] == flat[1] == flat[2]
    assert stored[0] < stored[1] < stored[2]


def test_attention_equals_the_formula():
    torch.manual_seed(0)
    attention, x = (
        Attention(2 * HEAD_CHANNELS).double(),
        torch.randn(2, 5, 2 * HEAD_CHANNELS, dtype=torch.float64),
    )
    q, k, v = F.linear(attention.norm(x), attention.qkv.weight, attention.qkv.bias).chunk(3, dim=-1)
    heads = []
    for i in range(2):
        of_head = slice(i * HEAD_CHANNELS, (i + 1) * HEAD_CHANNELS)
        weights = (q[..., of_head] @ k[..., of_head].mT / HEAD_CHANNELS**0.5).softmax(-1)
        heads.append(weights @ v[..., of_head])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)), rtol=1e-12, atol=1e-12)


def test_patches_are_embedded_row_by_row():
    stem = PatchEmbedding(1, 6, patch=2, grid=3).double()
    image = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    tokens = stem(image)
    patch = image[..., 2:4, 4:6].flatten()  # second row, third column
    expected = stem.projection.weight.flatten(1) @ patch + stem.projection.bias + stem.positions[0, 5]
    torch.testing.assert_close(tokens[0, 5], expected, rtol=1e-12, atol=1e-12)


def test_positions_are_interpolated_to_other_sizes_of_image():
    model = tiny()
    assert model(torch.randn(1, 3, 8, 20)).shape == (1, 3)
    (stem,) = model.stem
    with torch.no_grad():
        stem.positions.fill_(0.5)
    assert torch.allclose(stem._positions(3, 5), torch.full((1, 15, 64), 0.5))


def test_width_is_in_whole_heads_and_patch_is_free():
    model = tiny(width=0.5, patch=2)
    assert model.architecture.channels(0.5) == (192, 192)
    (stem,) = model.stem
    assert (stem.projection.out_channels, stem.projection.kernel_size) == (192, (2, 2))
    assert stem.positions.shape == (1, 16 * 16, 192)
    assert (model.name, model.depth) == ("revvit_small-3", 3)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"depth": 0}, DepthError, "any depth from 1; received 0"),
        ({"depth": 2.5}, DepthError, "received 2.5"),
        ({"width": -1}, WidthError, "received -1"),
        ({"patch": 0}, ResolutionError, "at least 1; received 0"),
        (
            {"name": "revnet38", "depth": 26, "patch": 4},
            ResolutionError,
            "only vision transformers.*revnet26",
        ),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        create_model(**{"name": "revvit_small", "num_classes": 3, "stem": "cifar", **arguments})


def test_image_that_cannot_be_cut_is_named():
    with pytest.raises(ResolutionError, match="multiples of 4; received 10 x 8"):
        tiny()(torch.randn(1, 3, 10, 8))
