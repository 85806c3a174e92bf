"""Reversible networks that rebuild activations in the backward pass instead of storing them.

>>> model = create_model("revnet110", num_classes=10)
>>> model.strategy
'reverse'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revmodels import measure
    from revmodels.coupling.block import ReversibleBlock
    from revmodels.coupling.linear import Coupling
    from revmodels.coupling.stage_entry import StageEntry
    from revmodels.errors import RevModelsError
    from revmodels.models.catalog import list_models
    from revmodels.models.gpt import GPT
    from revmodels.models.irevnet import IRevNet
    from revmodels.models.presets import create_model
    from revmodels.models.resnet import ResNet
    from revmodels.models.retrofit import retrofit, unretrofit
    from revmodels.models.revgpt import RevGPT
    from revmodels.models.revnet import RevNet
    from revmodels.models.revvit import RevViT
    from revmodels.precision import Precision
    from revmodels.sequence import ReversibleSequence
    from revmodels.strategies.registry import STRATEGIES

__all__ = [
    "GPT",
    "STRATEGIES",
    "Coupling",
    "IRevNet",
    "Precision",
    "ResNet",
    "RevGPT",
    "RevModelsError",
    "RevNet",
    "RevViT",
    "ReversibleBlock",
    "ReversibleSequence",
    "StageEntry",
    "create_model",
    "list_models",
    "measure",
    "retrofit",
    "unretrofit",
]

_HOMES = {
    "coupling.block": ("ReversibleBlock",),
    "coupling.linear": ("Coupling",),
    "coupling.stage_entry": ("StageEntry",),
    "errors": ("RevModelsError",),
    "models.catalog": ("list_models",),
    "models.gpt": ("GPT",),
    "models.irevnet": ("IRevNet",),
    "models.presets": ("create_model",),
    "models.resnet": ("ResNet",),
    "models.retrofit": ("retrofit", "unretrofit"),
    "models.revgpt": ("RevGPT",),
    "models.revnet": ("RevNet",),
    "models.revvit": ("RevViT",),
    "precision": ("Precision",),
    "sequence": ("ReversibleSequence",),
    "strategies.registry": ("STRATEGIES",),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a plan needs the numbers of the networks, and not PyTorch's compiler."""
    if name == "measure":
        return import_module("revmodels.measure")
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"revmodels.{module}"), name)
            return value
    raise AttributeError(f"module 'revmodels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
