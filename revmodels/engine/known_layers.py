"""Layers of PyTorch that are known to change nothing but running statistics, and the layers of a module.

A function made of known layers alone needs no watch: what it reads and writes is in its tables of parameters
and buffers. Any other may keep tensors, layers and generators in attributes and lists of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from revmodels.torch_internals import Dropout, has_hooks, own_children

PLAIN_LAYERS: dict[type[nn.Module], Any] = {
    kind: kind.forward
    for kind in (
        *(nn.Sequential, nn.Identity, nn.Linear, nn.Flatten, nn.Unflatten),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
        *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU),
        *(nn.PReLU, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Mish, nn.Softmax, nn.GLU),
        *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.PixelShuffle, nn.PixelUnshuffle),
    )
}
"""Layers that read their parameters, buffers and plain attributes, and write running statistics at most; each
with the method that this is known of."""

DRAWING = (Dropout,)
"""Those of them that draw random numbers when they train."""

_VALUES = frozenset({bool, int, float, str, type(None), tuple, list, dict, OrderedDict, set})
TABLES = frozenset(vars(nn.Module())) - {"training"}
"""Attributes of every module in which its content and its hooks are kept."""


def layers_of(module: nn.Module) -> list[nn.Module]:
    """What ``module.modules()`` yields, in a fraction of its time; every step asks this of every F and G."""
    found: dict[int, nn.Module] = {}
    waiting = [module]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in found:
            found[id(layer)] = layer
            waiting += [child for child in reversed(own_children(layer).values()) if child is not None]
    return list(found.values())


def layers_within_reach(module: nn.Module) -> list[nn.Module]:
    """`layers_of` and those that are kept in plain attributes, lists and dictionaries of theirs."""
    found: dict[int, nn.Module] = {}
    waiting = [module]
    while waiting:
        for layer in layers_of(waiting.pop()):
            if id(layer) in found:
                continue
            found[id(layer)] = layer
            for key, value in vars(layer).items():
                if key in TABLES:
                    continue
                if isinstance(value, dict):
                    waiting += [v for v in value.values() if isinstance(v, nn.Module)]
                elif isinstance(value, list | tuple | set):
                    waiting += [v for v in value if isinstance(v, nn.Module)]
                elif isinstance(value, nn.Module):
                    waiting.append(value)
    return list(found.values())


def plain_layers(module: nn.Module) -> list[nn.Module] | None:
    """What `layers_of` returns, if all are of a kind in `PLAIN_LAYERS`, as PyTorch made them, without hooks.

    Args:
        module: a residual function.

    Returns:
        The layers, or None if one of them is another.
    """
    found: dict[int, nn.Module] = {}
    waiting = [module]
    while waiting:
        layer = waiting.pop()
        if id(layer) in found:
            continue
        kind = type(layer)
        if (
            PLAIN_LAYERS.get(kind) is not kind.forward
            or has_hooks(layer)
            or not _VALUES.issuperset(map(type, vars(layer).values()))
        ):
            return None
        found[id(layer)] = layer
        children = own_children(layer)
        if children:
            waiting += [child for child in reversed(children.values()) if child is not None]
    return list(found.values())
