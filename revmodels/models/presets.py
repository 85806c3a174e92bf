"""Networks by name, in timm's convention: `create_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from revmodels.coupling.linear import Coupling
from revmodels.errors import (
    CouplingError,
    OptionError,
    ResolutionError,
    StrategyError,
    UnknownModelError,
    one_of,
)
from revmodels.models.architecture import Architecture, RevViTArchitecture
from revmodels.models.base import ResidualNetwork
from revmodels.models.catalog import PRESETS, list_models
from revmodels.models.decoder import LanguageArchitecture
from revmodels.models.gpt import GPT
from revmodels.models.irevnet import IRevNet
from revmodels.models.layers import UnitOptions
from revmodels.models.resnet import ResNet
from revmodels.models.reversible import ReversibleNetwork
from revmodels.models.revgpt import RevGPT
from revmodels.models.revnet import RevNet
from revmodels.models.revvit import RevViT
from revmodels.precision import Precision
from revmodels.strategies.registry import default_strategy

FAMILIES: dict[str, Any] = {
    "revnet": RevNet,
    "resnet": ResNet,
    "irevnet": IRevNet,
    "revvit": RevViT,
    "gpt": GPT,
    "revgpt": RevGPT,
}


class ImageOptions(TypedDict, total=False):
    """What only networks for images have.

    Args:
        num_classes: outputs of the classifier; it has to be given.
        in_channels: channels of the images; 3 without it.
        stem: ``cifar`` or ``imagenet``; without it, the preset's.
        patch: pixels along a side of a vision transformer's patches; without it, 4 behind the ``cifar`` stem,
            16 behind the ``imagenet`` stem.
        batch_norm_momentum: PyTorch's convention. The paper's code uses 0.01; 0.1, which counts without it,
            follows the statistics fast enough for short trainings.
    """

    num_classes: int
    in_channels: int
    stem: str | None
    patch: int | None
    batch_norm_momentum: float


class LanguageOptions(TypedDict, total=False):
    """What only language models have; without one, or with None, the preset's counts.

    Args:
        vocab_size: tokens.
        context_length: the longest row of tokens.
        activation: of the MLP, ``swiglu`` or ``gelu``.
        tied: whether the output layer is the embedding.
        qk_norm: whether queries and keys are normalized, each head by itself.
        parametrization: ``standard``, ``mup`` or ``completep``, see `revmodels.models.parametrization`.
    """

    vocab_size: int | None
    context_length: int | None
    activation: str | None
    tied: bool | None
    qk_norm: bool | None
    parametrization: str | None


class Options(ImageOptions, LanguageOptions, total=False):
    """The options of both kinds of networks, of which each takes its own."""


def create_model(
    name: str,
    *,
    width: float = 1.0,
    depth: int | None = None,
    coupling: str | Coupling | None = None,
    strategy: str | None = None,
    anchor_every: int | None = None,
    memory_budget_bytes: int | None = None,
    precision: Precision | None = None,
    **options: Unpack[Options],
) -> ResidualNetwork:
    """Build a network with fresh weights from the global random generator.

    Args:
        name: a preset, see `list_models`.
        width: multiplier on the preset's channels; channel counts are rounded to what the design allows: even
            numbers, and whole attention heads in a transformer.
        depth: another depth of the same design; None keeps the preset's.
        coupling: the rule that joins the streams: a name from `revmodels.coupling.linear`, or a `Coupling`;
            None is ``additive``.
        strategy: a name from `revmodels.strategies.registry`; None is ``reverse``, except for networks that
            cannot be reversed, ResNets and `gpt`: ``store``.
        anchor_every: with ``reverse``, every so-many-th unit of a stage keeps its input too, and rounding
            errors grow no further than from one to the next; None keeps the entries' alone.
        memory_budget_bytes: with ``budget``, the most bytes of activations and temporaries in a training
            step; None is what ``reverse`` takes.
        precision: the precision policy; None follows the dtype of the parameters, here PyTorch's default one.
        options: of networks for images: ``num_classes``, which has to be given, ``in_channels``, ``stem``,
            ``patch`` and ``batch_norm_momentum`` (`ImageOptions`); of language models: ``vocab_size``,
            ``context_length``, ``activation``, ``tied``, ``qk_norm`` and ``parametrization``
            (`LanguageOptions`).

    Returns:
        A module that maps images of shape (batch, in_channels, height, width) to (batch, num_classes); or
        tokens of shape (batch, length) to (batch, length, vocab_size), and with targets to their loss.

    Raises:
        UnknownModelError: no such preset.
        DepthError: the design has no network of that depth.
        WidthError: `width` is not a positive finite number, or too small for an i-RevNet to hold the image.
        ResolutionError: `patch` is not a whole number of pixels, or the network cuts no patches.
        LanguageError: a vocabulary or context that no language model can have.
        OptionError: an option that does not exist, that only the other kind of network has, or that is
            missing.
        CouplingError: unknown coupling, one that the precision cannot have, or a network without two streams.
        StrategyError: unknown strategy, or one that needs inverses, or anchors, for a network without.
        PrecisionError: ``exact`` coupling for a network without coupled streams.

    Example:
        >>> sum(p.numel() for p in create_model("revnet110", num_classes=10).parameters())
        1729194
        >>> model = create_model("revgpt_124m", vocab_size=256, context_length=512, depth=2)
        >>> model(torch.zeros(1, 512, dtype=torch.long)).shape
        torch.Size([1, 512, 256])
    """
    if name not in PRESETS:
        raise UnknownModelError(f"model: {one_of(name, list_models())}")
    architecture = PRESETS[name] if depth is None else PRESETS[name].with_depth(depth)
    build = _language_model if isinstance(architecture, LanguageArchitecture) else _image_network
    model: ResidualNetwork = build(architecture, {"width": width, "precision": precision}, options)
    model.strategy = strategy or default_strategy(invertible=architecture.is_reversible)
    if coupling is not None:
        if not isinstance(model, ReversibleNetwork):
            raise CouplingError(
                f"coupling: {name} has no two streams to couple; received {coupling!r}. Leave it out, or use "
                "a reversible network."
            )
        model.coupling = coupling
    for setting, value in (("anchor_every", anchor_every), ("memory_budget_bytes", memory_budget_bytes)):
        if value is None:
            continue
        if not isinstance(model, ReversibleNetwork):
            raise StrategyError(
                f"{setting}: {name} rebuilds nothing, so it has no use for it; received {value!r}. "
                "Leave it out, or use a reversible network."
            )
        setattr(model, setting, value)
    return model


def _language_model(
    architecture: Architecture, common: Mapping[str, Any], options: Mapping[str, Any]
) -> ResidualNetwork:
    assert isinstance(architecture, LanguageArchitecture)
    _check_options(architecture, options, LanguageOptions)
    return FAMILIES[architecture.family](architecture.with_options(**options), **common)


def _image_network(
    architecture: Architecture, common: Mapping[str, Any], options: Mapping[str, Any]
) -> ResidualNetwork:
    _check_options(architecture, options, ImageOptions)
    if "num_classes" not in options:
        raise OptionError(
            f"num_classes: {architecture.name} classifies images, so the number of classes has to be given; "
            "received none. Add num_classes=10, or whatever it is."
        )
    counts = {"num_classes": options["num_classes"], "in_channels": options.get("in_channels", 3)}
    for argument, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{argument}: a whole number of at least 1; received {count!r}.")
    stem, patch = options.get("stem"), options.get("patch")
    if stem not in (None, "cifar", "imagenet"):
        raise UnknownModelError(f"stem: {one_of(stem, ('cifar', 'imagenet'))}")
    if stem is not None:
        architecture = architecture.with_stem(stem)
    if patch is not None:
        if not isinstance(architecture, RevViTArchitecture):
            raise ResolutionError(
                f"patch: only vision transformers cut images into patches; received patch={patch!r} for "
                f"{architecture.name}. Leave it out."
            )
        architecture = architecture.with_patch(patch)
    unit_options = UnitOptions(
        bottleneck=architecture.block == "bottleneck",
        batch_norm_momentum=options.get("batch_norm_momentum", 0.1),
    )
    return FAMILIES[architecture.family](architecture, **counts, **common, options=unit_options)


def _check_options(architecture: Architecture, options: Mapping[str, Any], kind: Any) -> None:
    own, all_of_them = tuple(kind.__annotations__), tuple(Options.__annotations__)
    for name, value in options.items():
        if name in own:
            continue
        if name not in all_of_them:
            raise OptionError(f"options: {one_of(name, own)}")
        takes = "tokens" if kind is LanguageOptions else "images"
        raise OptionError(
            f"{name}: {architecture.name} takes {takes} and has no such option; received {value!r}. Leave it "
            f"out. Its options: {', '.join(own)}."
        )
