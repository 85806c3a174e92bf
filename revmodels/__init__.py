"""Reversible networks that rebuild activations in the backward pass instead of storing them.

>>> model = create_model("revnet110", num_classes=10)
>>> model.strategy
'reverse'
"""

from revmodels.coupling import ReversibleBlock, StageEntry
from revmodels.errors import RevModelsError
from revmodels.irevnet import IRevNet
from revmodels.precision import Precision
from revmodels.presets import create_model, list_models
from revmodels.resnet import ResNet
from revmodels.revnet import RevNet
from revmodels.revvit import RevViT
from revmodels.sequence import STRATEGIES, ReversibleSequence

__all__ = [
    "STRATEGIES",
    "IRevNet",
    "Precision",
    "ResNet",
    "RevModelsError",
    "RevNet",
    "RevViT",
    "ReversibleBlock",
    "ReversibleSequence",
    "StageEntry",
    "create_model",
    "list_models",
    "measure",
]


def __getattr__(name: str):
    if name == "measure":
        from importlib import import_module

        return import_module("revmodels.measure")
    raise AttributeError(f"module 'revmodels' has no attribute {name!r}")
