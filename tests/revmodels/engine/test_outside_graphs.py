"""Exact coupling runs outside compiled graphs, and the compiler is imported where something compiles."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["revmodels.sequence", "revmodels.models.presets"])
def test_what_compiles_nothing_does_not_import_the_compiler(module):
    code = (
        f"import sys, {module}; print([m for m in ('torch._dynamo', 'torch._inductor') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_exact_coupling_trains_uncompiled_without_the_compiler_and_runs_uncompiled_once_it_is_there():
    code = """
import sys, torch
from torch import nn
from revmodels import Precision, ReversibleBlock, ReversibleSequence
net = ReversibleSequence([ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3)])
net.set_precision(Precision(coupling="exact"))
x = torch.randn(2, 8)
net(x).sum().backward()
expected, gradient = net(x), net.blocks[0].f.weight.grad.clone()
print("torch._dynamo" in sys.modules)
net.zero_grad()
actual = torch.compile(net, backend="aot_eager")(x)
actual.sum().backward()
print("torch._dynamo" in sys.modules)
print(torch.equal(actual, expected), torch.equal(net.blocks[0].f.weight.grad, gradient))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:4] == ["False", "True", "True", "True"]
