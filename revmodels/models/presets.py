"""Networks by name, in timm's convention: `create_model`."""

from __future__ import annotations

from typing import Any

from revmodels.errors import ResolutionError, StrategyError, UnknownModelError, one_of
from revmodels.models.architecture import PRESETS, RevViTArchitecture, list_models
from revmodels.models.base import ResidualNetwork
from revmodels.models.irevnet import IRevNet
from revmodels.models.layers import UnitOptions
from revmodels.models.resnet import ResNet
from revmodels.models.reversible import ReversibleNetwork
from revmodels.models.revnet import RevNet
from revmodels.models.revvit import RevViT
from revmodels.precision import Precision
from revmodels.strategies.registry import default_strategy

FAMILIES: dict[str, Any] = {"revnet": RevNet, "resnet": ResNet, "irevnet": IRevNet, "revvit": RevViT}


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: float = 1.0,
    depth: int | None = None,
    stem: str | None = None,
    patch: int | None = None,
    strategy: str | None = None,
    anchor_every: int | None = None,
    memory_budget_bytes: int | None = None,
    precision: Precision | None = None,
    batch_norm_momentum: float = 0.1,
) -> ResidualNetwork:
    """Build a network with fresh weights from the global random generator.

    Args:
        name: a preset, see `list_models`.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        width: multiplier on the preset's channels; channel counts are rounded to what the design allows: even
            numbers, and whole attention heads of 64 channels in a vision transformer.
        depth: another depth of the same design; None keeps the preset's.
        stem: ``cifar`` or ``imagenet``; None keeps the preset's.
        patch: pixels along a side of a vision transformer's patches; None is 4 behind the ``cifar`` stem, 16
            behind the ``imagenet`` stem.
        strategy: a name from `revmodels.strategies.registry`; None is ``reverse``, except for ResNets, which
            cannot be reversed: ``store``.
        anchor_every: with ``reverse``, every so-many-th unit of a stage keeps its input too, and rounding
            errors grow no further than from one to the next; None keeps the entries' alone.
        memory_budget_bytes: with ``budget``, the most bytes of activations and temporaries in a training
            step; None is what ``reverse`` takes.
        precision: the precision policy; None follows the dtype of the parameters, here PyTorch's default one.
        batch_norm_momentum: PyTorch's convention. The paper's code uses 0.01; the default 0.1 follows the
            statistics fast enough for short trainings.

    Returns:
        A module that maps (batch, in_channels, height, width) to (batch, num_classes).

    Raises:
        UnknownModelError: no such preset.
        DepthError: the design has no network of that depth.
        WidthError: `width` is not a positive finite number, or too small for an i-RevNet to hold the image.
        ResolutionError: `patch` is not a whole number of pixels, or the network cuts no patches.
        StrategyError: unknown strategy, or one that needs inverses, or anchors, for a ResNet.
        PrecisionError: ``exact`` coupling for a ResNet.

    Example:
        >>> sum(p.numel() for p in create_model("revnet110", num_classes=10).parameters())
        1729194
    """
    if name not in PRESETS:
        raise UnknownModelError(f"model: {one_of(name, list_models())}")
    if stem not in (None, "cifar", "imagenet"):
        raise UnknownModelError(f"stem: {one_of(stem, ('cifar', 'imagenet'))}")
    for argument, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{argument}: a whole number of at least 1; received {count!r}.")
    architecture = PRESETS[name] if depth is None else PRESETS[name].with_depth(depth)
    if stem is not None:
        architecture = architecture.with_stem(stem)
    if patch is not None:
        if not isinstance(architecture, RevViTArchitecture):
            raise ResolutionError(
                f"patch: only vision transformers cut images into patches; received patch={patch!r} for "
                f"{name}. Leave it out."
            )
        architecture = architecture.with_patch(patch)
    model: ResidualNetwork = FAMILIES[architecture.family](
        architecture,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        precision=precision,
        options=UnitOptions(
            bottleneck=architecture.block == "bottleneck", batch_norm_momentum=batch_norm_momentum
        ),
    )
    model.strategy = strategy or default_strategy(invertible=architecture.is_reversible)
    for setting, value in (("anchor_every", anchor_every), ("memory_budget_bytes", memory_budget_bytes)):
        if value is None:
            continue
        if not isinstance(model, ReversibleNetwork):
            raise StrategyError(
                f"{setting}: {name} rebuilds nothing, so it has no use for it; received {value!r}. "
                "Leave it out, or use a RevNet."
            )
        setattr(model, setting, value)
    return model
