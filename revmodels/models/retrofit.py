"""An ordinary residual network made reversible, on its own weights, and back.

A layer of a transformer is two residual functions, ``h = h + F(h)`` and ``h = h + G(h)``. `retrofit` makes a
reversible block of each layer, coupled by BDIA (`revmodels.coupling.linear`, arXiv 2407.09093): the pair is
(state before, state), and in evaluation mode a block computes exactly the layer that it was made of. So the
first outputs are those of the original. In training mode the state before is mixed in with random signs, of
which the layer is the mean, and activations are rebuilt instead of stored.

The inverse of BDIA divides by ±½ twice a block, which multiplies rounding errors by 4. Every few blocks one
keeps its input, so that they stay below `ERRORS_GROW` times what they were.

The next family of networks goes into `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.linear import Coupling, RandomCoupling, bdia
from revmodels.errors import NotReversibleError, ReplayError
from revmodels.sequence import ReversibleSequence

ERRORS_GROW = 256.0
"""How much rounding errors may grow between two blocks that keep their input."""

Halves = Callable[[nn.Module], tuple[nn.Module, nn.Module]]
"""F and G of a layer: modules with the layer's own submodules in them, which return what is added."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of network whose layers are known.

    Attributes:
        layers: where the layers are: the path of an ``nn.Sequential`` or ``nn.ModuleList``.
        layer: name of the class of a layer, with its module.
        halves: takes a layer apart.
    """

    layers: str
    layer: str
    halves: Halves


class Reversible(nn.Module):
    """What stands in place of the layers of a network: all of them as one reversible sequence.

    Args:
        container: what held the layers; it is not registered, since the layers' submodules are.
        body: the blocks that were made of them.

    Call it as the network calls a layer, with the state first.
    """

    def __init__(self, container: nn.Module, body: ReversibleSequence) -> None:
        super().__init__()
        self.body = body
        self.__dict__["container"] = container

    def forward(self, state: Tensor, *context: Any, **options: Any) -> Tensor:
        """The state behind the last layer, of the shape and dtype of `state`."""
        return self.body((state, state), *context, **options)[1]


def retrofit(
    model: nn.Module,
    *,
    coupling: RandomCoupling | None = None,
    strategy: str = "reverse",
    layers: str | None = None,
    halves: Halves | None = None,
) -> nn.Module:
    """Make the layers of a network reversible, in place and on the same weights.

    Known are Hugging Face's GPT-2 (``transformers``), and the vision transformers of torchvision and timm.
    Any other network whose layers are two residual functions says where they are and what they are.

    Args:
        model: a residual network with its layers in an ``nn.Sequential`` or ``nn.ModuleList``.
        coupling: a BDIA of another size; None is ``bdia(0.5)``. The smaller, the nearer is the training step
            to that of the original, and the faster errors grow.
        strategy: of the reversible sequence.
        layers: path of the layers, such as ``encoder.layers``, where the network is not known.
        halves: takes a layer apart into F and G, likewise.

    Returns:
        `model`.

    Raises:
        NotReversibleError: the network is not known, was retrofitted already, or has layers of another kind.
    """
    rule = bdia(0.5) if coupling is None else coupling
    if not isinstance(rule, RandomCoupling):
        raise NotReversibleError(
            "retrofit: only BDIA computes in evaluation mode what the network computed before; received "
            f"{rule!r}. Use revmodels.coupling.linear.bdia(gamma)."
        )
    path, container, take_apart = _found(model, layers, halves)
    blocks = [ReversibleBlock(*take_apart(layer), coupling=rule, split_dim=-1) for layer in container]
    body = ReversibleSequence(blocks, split_dim=-1, anchor_every=_distance(rule, len(blocks)))
    body.strategy = strategy
    made = Reversible(container, body)
    kind = nn.ModuleList if isinstance(container, nn.ModuleList) else nn.Sequential
    _put(model, path, kind([made]) if kind is nn.ModuleList else nn.Sequential(made))
    return model.train(model.training)


def unretrofit(model: nn.Module) -> nn.Module:
    """Put the layers of a retrofitted network back, with the weights that they have now.

    Args:
        model: what `retrofit` returned.

    Returns:
        `model`.

    Raises:
        NotReversibleError: it was not retrofitted.
    """
    for path, module in model.named_modules():
        if isinstance(module, Reversible):
            _put(model, path.rpartition(".")[0], module.__dict__["container"])
            return model.train(model.training)
    raise NotReversibleError(
        f"unretrofit: {type(model).__name__} holds no layers that revmodels.retrofit has made reversible."
    )


def _found(model: nn.Module, layers: str | None, halves: Halves | None) -> tuple[str, Any, Halves]:
    if any(isinstance(module, Reversible) for module in model.modules()):
        raise NotReversibleError(f"retrofit: the layers of {type(model).__name__} are reversible already.")
    if layers is not None and halves is not None:
        return layers, model.get_submodule(layers), halves
    for path, module in model.named_modules():
        for family in FAMILIES:
            if not (path == family.layers or path.endswith(f".{family.layers}")):
                continue
            kinds = {f"{type(layer).__module__}.{type(layer).__qualname__}" for layer in module.children()}
            if kinds == {family.layer}:
                return path, module, family.halves
    known = ", ".join(family.layer for family in FAMILIES)
    raise NotReversibleError(
        f"retrofit: {type(model).__name__} has no layers of a kind that is known ({known}). Say where they "
        "are and what their residual functions are: retrofit(model, layers='path', halves=function)."
    )


def _distance(rule: Coupling, depth: int) -> int | None:
    """How many blocks may be rebuilt in a row."""
    distance = 1
    while distance < depth and abs(rule.alpha) ** (-2 * (distance + 1)) <= ERRORS_GROW:
        distance += 1
    return None if distance >= depth else distance


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


class _GPT2Attention(nn.Module):
    """F of a layer of GPT-2: it takes what ``GPT2Block.forward`` takes."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.attention = layer.ln_1, layer.attn

    def forward(
        self, x: Tensor, cache: Any = None, attention_mask: Tensor | None = None, *_: Any, **options: Any
    ) -> Tensor:
        options.pop("encoder_attention_mask", None)
        if cache is not None and torch.is_grad_enabled():
            if cache.get_seq_length():
                raise ReplayError(
                    "a cache of keys and values is written to by every layer, and a backward pass that "
                    "evaluates layers again cannot go with it. Call the network under torch.no_grad()."
                )
            cache = None
            options["use_cache"] = False
        return self.attention(self.norm(x), cache=cache, attention_mask=attention_mask, **options)[0]


class _Stream(nn.Module):
    """A residual function of the stream alone, in the order of its parts."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


def _gpt2(layer: Any) -> tuple[nn.Module, nn.Module]:
    if hasattr(layer, "crossattention"):
        raise NotReversibleError(
            "retrofit: a layer of GPT-2 with cross-attention is three residual functions, a block has two."
        )
    return _GPT2Attention(layer), _Stream(layer.ln_2, layer.mlp)


class _TorchvisionAttention(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.attention, self.drop = layer.ln_1, layer.self_attention, layer.dropout

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return self.drop(self.attention(h, h, h, need_weights=False)[0])


class _TimmAttention(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.attention = layer.norm1, layer.attn
        self.scale, self.drop = layer.ls1, layer.drop_path1

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        return self.drop(self.scale(self.attention(self.norm(x), **options)))


def _torchvision(layer: Any) -> tuple[nn.Module, nn.Module]:
    return _TorchvisionAttention(layer), _Stream(layer.ln_2, layer.mlp)


def _timm(layer: Any) -> tuple[nn.Module, nn.Module]:
    return _TimmAttention(layer), _Stream(layer.norm2, layer.mlp, layer.ls2, layer.drop_path2)


FAMILIES: tuple[Family, ...] = (
    Family(layers="h", layer="transformers.models.gpt2.modeling_gpt2.GPT2Block", halves=_gpt2),
    Family(
        layers="encoder.layers",
        layer="torchvision.models.vision_transformer.EncoderBlock",
        halves=_torchvision,
    ),
    Family(layers="blocks", layer="timm.models.vision_transformer.Block", halves=_timm),
)
"""The networks that are known."""
