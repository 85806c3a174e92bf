"""What the benchmarks run: networks with their batches.

``revnet*`` are the paper's; ``mlp64`` is a stack of perceptrons; ``lm*`` are `revgpt` networks of 128
features and 4 heads on bytes, named by blocks and context. A subject may have a twin: the conventional
network of equal parameters, in which whoever does not reverse would save memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model

MLP_BLOCKS, MLP_CHANNELS, MLP_HIDDEN = 64, 128, 512
BYTES = 256
"""The vocabulary of the language models."""

Batch = tuple[Tensor, Tensor]
Build = Callable[[torch.dtype], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network and its batch.

    Attributes:
        name: in the tables.
        build: makes the network of a dtype with fresh weights from the global generator.
        shape: of the inputs without the batch.
        batch: examples for measurements of memory.
        timed_batch: examples for measurements of time; smaller where a step would take many seconds.
        tokens: whether inputs are tokens, and targets those that come next.
        twin: makes the conventional network of equal parameters; None if there is none.
        little: makes a network of the same design that is small enough for a step in float64 under every
            strategy; None is `build`.
        little_twin: likewise, of the twin's design.

    """

    name: str
    build: Build
    shape: tuple[int, ...]
    batch: int
    timed_batch: int
    tokens: bool = False
    twin: Build | None = None
    little: Build | None = None
    little_twin: Build | None = None

    def data(self, batch: int, dtype: torch.dtype = torch.float32) -> Batch:
        """Inputs and targets for `batch` examples, images in channels_last."""
        generator = torch.Generator().manual_seed(1)
        if self.tokens:
            text = torch.randint(BYTES, (batch, self.shape[0] + 1), generator=generator)
            return text[:, :-1].contiguous(), text[:, 1:].contiguous()
        inputs = torch.randn(batch, *self.shape, generator=generator).to(dtype)
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, torch.arange(batch) % 10

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """One forward pass to the mean loss, a scalar."""
        inputs, targets = batch
        if self.tokens:
            return model(inputs, targets).mean
        return F.cross_entropy(model(inputs), targets)

    def optimizer(self, parameters: object) -> torch.optim.Optimizer:
        """As such networks are trained: AdamW for language models, SGD with momentum for others."""
        if self.tokens:
            return torch.optim.AdamW(parameters, lr=1e-3)  # type: ignore[arg-type]
        return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=2e-4)  # type: ignore[arg-type]


class Stack(nn.Module):
    """Reversible units of multilayer perceptrons, and a classifier."""

    def __init__(self, blocks: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.body = ReversibleSequence(
            [ReversibleBlock(_mlp(channels, hidden), _mlp(channels, hidden)) for _ in range(blocks)]
        )
        self.head = nn.Linear(2 * channels, 10)

    def start(self, inputs: Tensor) -> Tensor:
        """Return a copy of the inputs, which are the streams.

        memcnn empties the tensor that it is called with, so it gets a copy, and so do all. RevTorch and
        RevLib compute nothing for inputs that need no gradient.

        Returns:
            (N, 2 x channels), which needs a gradient.
        """
        return inputs.clone().requires_grad_()

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 2 x channels) to (N, 10)."""
        return self.head(self.body(self.start(inputs)))


def _mlp(channels: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
    )


def _stack(dtype: torch.dtype) -> nn.Module:
    return Stack(MLP_BLOCKS, MLP_CHANNELS, MLP_HIDDEN).to(dtype)


def _network(name: str, depth: int | None = None) -> Build:
    return partial(_made, name, depth, {"num_classes": 10})


def _language(family: str, blocks: int, context: int) -> Build:
    return partial(_made, f"{family}_1m", blocks, {"vocab_size": BYTES, "context_length": context})


def _made(name: str, depth: int | None, options: dict[str, int], dtype: torch.dtype) -> nn.Module:
    format = "fp64" if dtype == torch.float64 else "fp32"
    precision = Precision(compute=format, stream=format)
    return create_model(name, depth=depth, precision=precision, **options)  # type: ignore[arg-type]


def images(name: str, depth: int, twin: tuple[str, int], batch: int, timed_batch: int) -> Subject:
    """A RevNet on images of 32 x 32 pixels, and the ResNet of equal parameters."""
    return Subject(
        name=f"revnet{depth}",
        build=_network(name, depth),
        shape=(3, 32, 32),
        batch=batch,
        timed_batch=timed_batch,
        twin=_network(*twin),
        little=_network("revnet38", 26),
        little_twin=_network("resnet32", 20),
    )


def language(blocks: int, context: int, batch: int) -> Subject:
    """A `revgpt` on bytes, and its twin `gpt`."""
    return Subject(
        name=f"lm{blocks}_{context}",
        build=_language("revgpt", blocks, context),
        shape=(context,),
        batch=batch,
        timed_batch=batch,
        tokens=True,
        twin=_language("gpt", blocks, context),
        little=_language("revgpt", 3, context),
        little_twin=_language("gpt", 3, context),
    )


SUBJECTS = {
    s.name: s
    for s in (
        images("revnet38", 38, ("resnet32", 32), 100, 16),
        images("revnet110", 110, ("resnet110", 110), 100, 16),
        images("revnet164", 164, ("resnet164", 164), 100, 8),
        images("revnet110", 218, ("resnet110", 218), 100, 16),
        Subject(
            name="mlp64",
            build=_stack,
            shape=(2 * MLP_CHANNELS,),
            batch=512,
            timed_batch=128,
        ),
        language(12, 256, 4),
        language(24, 256, 4),
        language(48, 256, 4),
        language(12, 2048, 1),
        language(48, 2048, 1),
        Subject(
            name="small",
            build=_network("revnet38", 26),
            shape=(3, 16, 16),
            batch=4,
            timed_batch=4,
            twin=_network("resnet32", 20),
        ),
        Subject(
            name="small_lm",
            build=_language("revgpt", 3, 32),
            shape=(32,),
            batch=4,
            timed_batch=4,
            tokens=True,
            twin=_language("gpt", 3, 32),
        ),
    )
}
"""``small`` and ``small_lm`` are for a look at whether everything works."""
