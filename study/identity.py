"""What a trial is: settings with their defaults resolved, their canonical form, and the hash of that.

Two trials are one if nothing that changes the result differs between them. Names, paths, resources and the
executor are therefore left out; the contents of files and the number of workers are in.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any, get_type_hints

from study.errors import StudyError, nearest
from study.settings import (
    DataSettings,
    MemorySettings,
    ModelSettings,
    PrecisionSettings,
    ProbeSettings,
    TrialSettings,
)

RECIPE = 1
"""Raise it when the training loop changes so that equal settings give other results."""


def resolve(settings: TrialSettings) -> TrialSettings:
    """The same settings with depth, strategy and an exact coupling's grid spelled out.

    Raises
    ------
    StudyError
        Unknown model, a depth its design cannot have, a strategy or coupling its family cannot use, or
        settings of precision that contradict each other.

    """
    depth, strategy = _resolved(settings.model, settings.memory.strategy)
    return replace(
        settings,
        model=replace(settings.model, depth=depth),
        precision=_resolved_precision(settings.precision, settings.model.name),
        memory=MemorySettings(
            strategy=strategy, anchor_every=settings.memory.anchor_every if strategy == "reverse" else None
        ),
    )


def _resolved_precision(settings: PrecisionSettings, model: str) -> PrecisionSettings:
    from revmodels import Precision
    from revmodels.architecture import PRESETS
    from revmodels.errors import PrecisionError
    from revmodels.grid import check_bits

    try:
        precision = Precision(**asdict(settings))
    except PrecisionError as error:
        path, _, rule = str(error).partition(": ")
        value = getattr(settings, path.removeprefix("precision."), None)
        raise StudyError(path, value=value, rule=rule) from None
    if precision.coupling == "additive":
        return settings
    if PRESETS[model].family == "resnet":
        raise StudyError(
            "precision.coupling",
            value=precision.coupling,
            rule=f"{model} has no coupled streams and nothing to invert",
            remedy="use additive, or make space a list of mappings: one for the RevNets with exact, one for "
            "the ResNets without",
        )
    return replace(settings, grid_bits=check_bits(settings.grid_bits, precision.stream_dtype))


@lru_cache(maxsize=1024)
def _resolved(model: ModelSettings, strategy: str | None) -> tuple[int, str]:
    from revmodels import list_models
    from revmodels.architecture import PRESETS
    from revmodels.errors import DepthError

    if model.name not in PRESETS:
        remedy = nearest(model.name, list_models())
        raise StudyError("model.name", value=model.name, rule="must be a known model", remedy=remedy)
    architecture = PRESETS[model.name]
    if model.depth is not None:
        try:
            architecture = architecture.with_depth(model.depth)
        except DepthError as error:
            rule, _, rest = str(error).removeprefix("depth: ").partition(" received ")
            remedy = rest.partition("; ")[2].rstrip(".")
            raise StudyError(
                "model.depth", value=model.depth, rule=rule.rstrip(";, "), remedy=remedy
            ) from None
    if architecture.family == "resnet" and strategy == "reverse":
        raise StudyError(
            "memory.strategy",
            value=strategy,
            rule=f"{model.name} is not reversible, so there is nothing to rebuild its activations from",
            remedy="use store or checkpoint, or make space a list of mappings: one for the RevNets with "
            "reverse, one for the ResNets without",
        )
    return architecture.depth, strategy or ("store" if architecture.family == "resnet" else "reverse")


def canonical(settings: TrialSettings) -> dict[str, Any]:
    """Everything that changes the result, as plain values that JSON keeps exactly.

    Raises
    ------
    StudyError
        The settings cannot be resolved, or their data set is missing.

    """
    settings = _plain_numbers(resolve(settings))
    train = asdict(settings.train)
    if settings.train.optimizer != "sgd":
        del train["momentum"]
    precision, memory = asdict(settings.precision), asdict(settings.memory)
    if settings.precision.coupling == "additive":
        del precision["grid_bits"]
    if settings.memory.anchor_every is None:
        del memory["anchor_every"]
    probed = settings.probe.enabled and settings.memory.strategy == "reverse"
    return {
        "recipe": RECIPE,
        "data": _canonical_data(settings.data),
        "model": asdict(settings.model),
        "precision": precision,
        "memory": memory,
        "train": train,
        "workers": settings.scaling.workers,
        "probe": _canonical_probe(settings.probe) if probed else None,
        "seed": settings.seed,
    }


def canonical_json(settings: TrialSettings) -> str:
    """`canonical` as JSON with sorted keys and no spaces."""
    return json.dumps(canonical(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)


def trial_id(settings: TrialSettings) -> str:
    """16 hexadecimal digits of the SHA-256 of `canonical_json`."""
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16]


def _canonical_probe(probe: ProbeSettings) -> dict[str, Any]:
    extras = {name: True for name in ("reference", "lipschitz") if getattr(probe, name)}
    return {"every": probe.every, "examples": probe.examples, **extras}


def _canonical_data(data: DataSettings) -> dict[str, Any]:
    from study.sources import fingerprint

    values = {key: value for key, value in asdict(data).items() if key not in ("name", "root", "download")}
    return {"source": fingerprint(data), **values}


def _plain_numbers(settings: Any) -> Any:
    """The same dataclass with a float wherever its type says float, so that 1 and 1.0 are one value."""
    hints, changed = get_type_hints(type(settings)), {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if hasattr(value, "__dataclass_fields__"):
            changed[field.name] = _plain_numbers(value)
        elif (
            isinstance(value, int)
            and not isinstance(value, bool)
            and hints[field.name] in (float, float | None)
        ):
            changed[field.name] = float(value)
    return replace(settings, **changed)
