"""The precision policy: which dtypes reach F and G, and which carry the streams."""

import pytest
import torch
from torch import nn

from revmodels import Precision, create_model
from revmodels.errors import PrecisionError
from revmodels.precision import DTYPES


@pytest.mark.parametrize("compute", DTYPES)
@pytest.mark.parametrize("stream", DTYPES)
def test_arithmetic_and_stream_dtypes(compute, stream):
    model = create_model(
        "revnet38", num_classes=4, depth=26, width=0.2, precision=Precision(compute=compute, stream=stream)
    )
    convolutions, streams = set(), set()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, out: convolutions.add(out.dtype))
    model.body.observer = lambda i, x1, x2: streams.update((x1.dtype, x2.dtype))
    logits = model(torch.randn(4, 3, 8, 8))
    logits.sum().backward()
    assert convolutions == {DTYPES[compute]}
    assert streams == {DTYPES[stream]}
    assert logits.dtype == model.precision.parameter_dtype
    assert all(p.grad.dtype == p.dtype == model.precision.parameter_dtype for p in model.parameters())


def test_precision_can_be_switched_on_a_live_model():
    model = create_model("revnet38", num_classes=4, depth=14, width=0.2)
    model.precision = Precision(compute="fp64", stream="fp64")
    assert next(model.parameters()).dtype == torch.float64
    model.precision = Precision(compute="bf16")
    assert next(model.parameters()).dtype == torch.float32
    assert all(unit.precision.compute == "bf16" for unit in model.body.units())


def test_explicit_precision_overrules_the_callers_autocast():
    model = create_model("revnet38", num_classes=4, depth=14, width=0.2)
    seen = set()
    model.body.blocks[0].f.register_forward_hook(lambda m, args, out: seen.add(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert seen == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"compute": "float32"}, ["precision.compute", "'float32'", "fp32"]),
        ({"stream": "int8"}, ["precision.stream", "'int8'"]),
        ({"coupling": "additiv"}, ["precision.coupling", "Did you mean 'additive'?"]),
        ({"compute": "bf16", "matmul": "tf32"}, ["tf32", "'bf16'", "matmul='ieee'"]),
    ],
)
def test_illegal_settings_are_refused_with_the_reason(arguments, words):
    with pytest.raises(PrecisionError) as caught:
        Precision(**arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)
