"""The presets by name, and `list_models`. What has no PyTorch in it: a plan reads this file alone."""

from __future__ import annotations

from fnmatch import fnmatch

from revmodels.models.architecture import Architecture, IRevNetArchitecture, RevViTArchitecture
from revmodels.models.decoder import DECODERS, LanguageArchitecture


def _cifar(name: str, family: str, block: str, n: int, filters: tuple[int, ...]) -> Architecture:
    return Architecture(name=name, family=family, block=block, stem="cifar", units=(n, n, n), filters=filters)


def _imagenet(name: str, family: str, units: tuple[int, ...], filters: tuple[int, ...]) -> Architecture:
    return Architecture(
        name=name, family=family, block="bottleneck", stem="imagenet", units=units, filters=filters
    )


def _irevnet(name: str, stem: str, units: tuple[int, ...], filters: tuple[int, ...]) -> Architecture:
    return IRevNetArchitecture(
        name=name, family="irevnet", block="bottleneck", stem=stem, units=units, filters=filters
    )


def _revvit(name: str, channels: int) -> Architecture:
    return RevViTArchitecture(
        name=name, family="revvit", block="transformer", stem="imagenet", units=(12,), filters=(channels,)
    )


_NARROW = (16, 16, 32, 64)
_REV = (32, 32, 64, 128)
_RES_IMAGENET = (64, 64, 128, 256, 512)
_REV_IMAGENET = (128, 128, 256, 512, 832)

PRESETS: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        _cifar("revnet38", "revnet", "basic", 3, (32, 32, 64, 112)),
        _cifar("revnet110", "revnet", "basic", 9, _REV),
        _cifar("revnet164", "revnet", "bottleneck", 9, _REV),
        _imagenet("revnet56", "revnet", (2, 2, 3, 2), _REV_IMAGENET),
        _imagenet("revnet104", "revnet", (2, 2, 11, 2), _REV_IMAGENET),
        _cifar("resnet32", "resnet", "basic", 5, _NARROW),
        _cifar("resnet110", "resnet", "basic", 18, _NARROW),
        _cifar("resnet164", "resnet", "bottleneck", 18, _NARROW),
        _imagenet("resnet50", "resnet", (3, 4, 6, 3), _RES_IMAGENET),
        _imagenet("resnet101", "resnet", (3, 4, 23, 3), _RES_IMAGENET),
        _imagenet("resnet152", "resnet", (3, 8, 36, 3), _RES_IMAGENET),
        _irevnet("irevnet", "cifar", (9, 9, 9), (16, 64, 256)),
        _irevnet("irevnet302", "imagenet", (3, 8, 36, 3), (24, 96, 384, 1536)),
        _revvit("revvit_small", 384),
        _revvit("revvit_base", 768),
        *DECODERS,
    )
}
"""The networks by name: of the RevNet paper and its code; of Jacobsen et al. (ICLR 2018), for CIFAR with the
image padded to 16 channels and for ImageNet unpadded; of Mangalam et al. (CVPR 2022), sizes S and B; and the
language models, see `revmodels.models.decoder`."""


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the presets that match a shell pattern, sorted by family and depth.

    Language models are sorted by family and parameters.

    >>> list_models("revnet1*")
    ['revnet104', 'revnet110', 'revnet164']
    """
    names = sorted(PRESETS, key=lambda name: (PRESETS[name].family, _size(PRESETS[name])))
    return [name for name in names if fnmatch(name, pattern)]


def _size(architecture: Architecture) -> int:
    if isinstance(architecture, LanguageArchitecture):
        return architecture.parameters().total
    return architecture.depth
