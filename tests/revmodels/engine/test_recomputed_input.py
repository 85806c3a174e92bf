"""What enters the first unit is computed again, not stored."""

import copy

import pytest
import torch
from torch import nn

from revmodels import Precision, create_model, measure
from revmodels.errors import ReplayError


def make(precision=None, **kwargs):
    torch.manual_seed(0)
    precision = precision or Precision(compute="fp64", stream="fp64")
    return create_model("revnet38", num_classes=10, depth=26, width=0.25, precision=precision, **kwargs)


def images(n=3, dtype=torch.float64):
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=dtype)


def gradients(model, x, strategy):
    model = copy.deepcopy(model)
    model.strategy = strategy
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    model(x).square().sum().backward()
    after = torch.rand(())
    return [x.grad, *(p.grad for p in model.parameters())], [b.clone() for b in model.buffers()], after


@pytest.mark.parametrize("precision", [None, Precision(compute="fp64", stream="fp64", coupling="exact")])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_gradients_statistics_and_random_numbers_are_those_of_stored_mode(precision, stem):
    model = make(precision, stem=stem)
    # Random numbers in the stem: the second evaluation must draw the first one's.
    model.stem.append(nn.Dropout(0.3))
    x = images() if stem == "cifar" else torch.nn.functional.interpolate(images(), 64)
    expected, statistics, number = gradients(model, x, "store")
    found, moved, drawn = gradients(model, x, "reverse")
    for g, e in zip(found, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-12, atol=1e-12)
    for b, e in zip(moved, statistics, strict=True):
        torch.testing.assert_close(b, e, rtol=1e-12, atol=1e-12)
    assert number == drawn


def test_under_autocast_the_second_evaluation_is_the_first_one_bit_for_bit():
    model, x = make(Precision(compute="fp32", stream="fp32")), images(dtype=torch.float32)
    pairs = {}
    model.body.observer = lambda index, x1, x2: pairs.setdefault(index, torch.cat((x1, x2), 1).clone())
    entered = []
    model.body.register_forward_pre_hook(lambda _, streams: entered.append(torch.cat(streams, 1).clone()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    out.float().sum().backward()
    assert torch.equal(pairs[0], entered[0])


def test_nothing_that_enters_the_first_unit_is_stored():
    """Against a body called by itself (90,112 numbers an image, as in the paper): 32 x 32 x 32 less."""
    model = create_model("revnet110", num_classes=10)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        features = model.features(torch.randn(2, 3, 32, 32))
    pairs = [shape for shape in saved if len(shape) == 4 and shape[1] > 3]
    assert sum(shape.numel() for shape in pairs) // 2 == 90_112 - 32 * 32 * 32
    features.sum().backward()


def test_the_peak_is_a_pair_lower_than_with_a_stored_one():
    model, x = make(Precision()), images(8, torch.float32)
    batch = x, torch.arange(8)
    flat = measure.peak_memory(model, batch).activation_bytes
    model.features = lambda images: model.transform(model.start(images))
    pair = 8 * model.architecture.channels(0.25)[0] * 12 * 12 * 4
    assert measure.peak_memory(model, batch).activation_bytes - flat == pair


@pytest.mark.parametrize("what", ["images", "weight"])
def test_changes_between_the_passes_are_refused(what):
    model, x = make(), images()
    loss = model(x).sum()
    with torch.no_grad():
        (x if what == "images" else model.stem[0].weight).add_(1)
    with pytest.raises(ReplayError, match="the images, or parameters of the stem"):
        loss.backward()


def test_a_graph_that_is_kept_can_be_differentiated_again():
    model, x = make(), images()
    loss = model(x).square().sum()
    first = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
