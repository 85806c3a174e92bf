"""What oneDNN's LSTM allocates on a CPU, where PyTorch's fake kernels say something else.

In training its kernel returns a workspace for the backward pass, which is most of what an LSTM keeps. The
fake kernel returns one of no bytes. The size depends on the processor, and the real kernel alone knows it: it
is asked once for each shape. The fake backward kernel returns one gradient for both biases, the real one two.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import ceil
from typing import Any

import torch
from torch import Tensor

from revmodels.torch_internals import FakeTensor

LAYER = torch.ops.aten.mkldnn_rnn_layer.default
LAYER_BACKWARD = torch.ops.aten.mkldnn_rnn_layer_backward.default

WORKSPACE = 3
"""Position in what the layer returns."""
BIASES = 3, 4
"""Positions of the gradients in what its backward kernel returns."""
MOST_NUMBERS = 2**22
"""Of a sequence batch that the kernel is asked about, so that the question needs some 100 MB at most beside
the layer's weights. What a larger batch needs is proportional to its sequences."""


def workspace_bytes(args: Sequence[Any], out: Sequence[Tensor]) -> int | None:
    """Bytes of the real workspace of a fake LSTM layer; None if the layer is real, or keeps none.

    Args:
        args: what ``aten.mkldnn_rnn_layer`` was called with: the input (steps, sequences, features), the
            weights, the state, and plain values.
        out: what it returned.

    Returns:
        The size, asked of the real kernel.

    """
    if not isinstance(out[WORKSPACE], FakeTensor) or not torch.is_grad_enabled():
        return None
    shapes = tuple(tuple(t.shape) for t in args[:7])
    return _asked(shapes, args[0].dtype, _plain(args[7:]))


def with_two_bias_gradients(out: Sequence[Tensor]) -> Sequence[Tensor]:
    """What the fake backward kernel returned, with another tensor in place of one that is there twice."""
    first, second = (out[i] for i in BIASES)
    if first is not second:
        return out
    return (*out[: BIASES[1]], torch.empty_like(second), *out[BIASES[1] + 1 :])


def _plain(values: Sequence[Any]) -> tuple:
    return tuple(tuple(v) if isinstance(v, list) else v for v in values)


@cache
def _asked(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, values: tuple) -> int:
    steps, sequences, features = shapes[0]
    hidden = shapes[5][-1]
    asked = max(1, min(sequences, MOST_NUMBERS // (steps * max(features, hidden))))
    states = [(asked, *shape[1:]) for shape in shapes[5:]]
    real = [(steps, asked, features), *shapes[1:5], *states]

    def ask() -> int:
        out = LAYER(*(torch.zeros(shape, dtype=dtype) for shape in real), *values)
        return out[WORKSPACE].untyped_storage().nbytes()

    # A thread of its own has no modes: tensors are real there, and nobody counts them.
    with ThreadPoolExecutor(1) as thread:
        return ceil(thread.submit(ask).result() * sequences / asked)
