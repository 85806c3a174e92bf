"""`model.to(dtype)` and its short names, as in any PyTorch module; a policy that was assigned counts more."""

import copy

import pytest
import torch
import torch.nn.functional as F

from revmodels import Precision, create_model

NAMES = {"revnet38": {"depth": 14, "width": 0.25}, "resnet32": {"depth": 8, "width": 0.25}}
NAMES |= {
    "irevnet": {"width": 0.25, "depth": 20},
    "revvit_small": {"depth": 1, "width": 0.17, "stem": "cifar"},
}
CONVERSIONS = {
    "double": (lambda m: m.double(), torch.float64),
    "bfloat16": (lambda m: m.bfloat16(), torch.bfloat16),
    "half": (lambda m: m.half(), torch.float16),
    "to": (lambda m: m.to(torch.float64), torch.float64),
    "to and device": (lambda m: m.to("cpu", torch.bfloat16), torch.bfloat16),
    "there and back": (lambda m: m.double().float(), torch.float32),
}


def make(name, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=10, **{**NAMES[name], **options})


def images(dtype):
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_trained_in_the_dtype_that_it_was_converted_to(name, conversion):
    convert, dtype = CONVERSIONS[conversion]
    model = make(name)
    assert convert(model) is model
    out = model(images(dtype))
    assert out.dtype == dtype
    F.cross_entropy(out.float(), torch.arange(4)).backward()
    assert all(p.dtype == dtype and p.grad.dtype == dtype for p in model.parameters())
    assert str(dtype).endswith(
        {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16"}.get(model.precision.compute, "float16")
    )


@pytest.mark.parametrize("name", ["revnet38", "revvit_small"])
def test_gradients_after_double_equal_stored_mode(name):
    model = make(name).double()
    twin = copy.deepcopy(model)
    twin.strategy = "store"
    for net in (model, twin):
        net(images(torch.float64)).square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9)


def test_a_policy_that_was_asked_for_wins_and_says_so():
    model = make("revnet38", precision=Precision(compute="bf16", stream="fp32"))
    before = [p.clone() for p in model.parameters()]
    with pytest.warns(
        UserWarning, match=r"stay in torch.float32.*compute bf16.*received a conversion to torch.float64"
    ):
        model.double()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert model(images(torch.float32)).dtype == torch.float32


def test_a_policy_may_be_given_back():
    model = make("revnet38", precision=Precision(compute="fp64", stream="fp64"))
    model.precision = None
    model.bfloat16()
    assert model(images(torch.bfloat16)).dtype == torch.bfloat16
    model.precision = Precision()
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_conversion_without_a_dtype_is_silent(recwarn):
    model = make("revnet38", precision=Precision()).to("cpu").float()
    model.to(memory_format=torch.channels_last)
    assert not recwarn.list
    assert {p.device.type for p in model.to("meta").parameters()} == {"meta"}
