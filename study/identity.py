"""What a trial is: settings with their defaults resolved, their canonical form, and the hash of that.

Two trials are one if nothing that changes the result differs between them. Names, paths, resources and the
executor are therefore left out; the contents of files and the number of workers are in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any, get_type_hints

from revmodels.strategies.registry import STRATEGIES, default_strategy, find_strategy, is_strategy
from revmodels.strategies.strategy import Strategy
from study.code import is_own, is_path, source_of
from study.errors import StudyError, nearest
from study.settings.data import TaskSettings
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.setting import IF_CHANGED, NEVER, BrokenRule, Options
from study.settings.trial import TrialSettings, settings_of
from study.tasks.naming import CONTEXT_LENGTH, task_name

RECIPE = 2
"""Raise it when the training loop or the engine changes so that equal settings give other results."""


def resolve(settings: TrialSettings) -> TrialSettings:
    """Return the same settings with depth, strategy and an exact coupling's grid spelled out.

    Raises:
        StudyError: Unknown model, a depth its design cannot have, a strategy or coupling its family cannot
            use, or settings of precision that contradict each other.
    """
    if settings.data.context_length is None and task_name(settings) == "language":
        settings = replace(settings, data=replace(settings.data, context_length=CONTEXT_LENGTH))
    if is_own("model.name", settings.model.name):
        model, precision, memory = _resolved_own(settings)
    else:
        model, precision, memory = _resolved_parts(settings.model, settings.precision, settings.memory)
    if model.parametrization != "standard":
        _check_parametrization(settings)
    if model.coupling is not None or model.coupling_numbers:
        model = _with_coupling(settings, model, precision)
    if (model, precision, memory) == (settings.model, settings.precision, settings.memory):
        return settings
    return replace(settings, model=model, precision=precision, memory=memory)


def _check_parametrization(settings: TrialSettings) -> None:
    """See that the network has such parametrizations, and that the optimizer takes their rates."""
    from revmodels.models.catalog import PRESETS
    from revmodels.models.decoder import LanguageArchitecture

    name, model = settings.model.parametrization, settings.model.name
    if not isinstance(PRESETS.get(model), LanguageArchitecture):
        raise StudyError(
            "model.parametrization",
            value=name,
            rule=f"is for the presets gpt_* and revgpt_*, and the network is {model}",
            remedy="leave it out",
        )
    if settings.train.optimizer != "adamw":
        raise StudyError(
            "model.parametrization",
            value=name,
            rule=f"says rates and decay for adamw, and train.optimizer is {settings.train.optimizer}",
            remedy="use train.optimizer: adamw, or model.parametrization: standard",
        )


def _resolved_own(settings: TrialSettings) -> tuple[ModelSettings, PrecisionSettings, MemorySettings]:
    """Those of a network that the study brings along, which is built to see whether it can be reversed."""
    from study.network import holds_inverse

    memory, name = settings.memory, settings.model.name
    reversible = holds_inverse(settings)
    chosen = memory.strategy or default_strategy(invertible=reversible)
    if find_strategy(chosen).needs_inverse and not reversible:
        raise StudyError(
            "memory.strategy",
            value=chosen,
            rule=f"{name} holds no ReversibleSequence, so there is nothing to rebuild its activations from",
            remedy="use store or checkpoint, or build it of reversible blocks",
        )
    others: dict[str, Any] = {k: v for k, v in asdict(memory).items() if k != "strategy"}
    resolved = MemorySettings(strategy=chosen, **find_strategy(chosen).resolved(others))
    precision = settings.precision
    if precision.coupling == "exact":
        precision = _resolved_precision(precision, name)
    return settings.model, precision, resolved


def _with_coupling(
    settings: TrialSettings, model: ModelSettings, precision: PrecisionSettings
) -> ModelSettings:
    """The settings with all numbers of the coupling spelled out, and without one that is the preset's own."""
    name, numbers = model.coupling, model.coupling_numbers
    if name is None:
        raise StudyError(
            "model.coupling_numbers",
            value=dict(numbers),
            rule="are those of a coupling, and none is named",
            remedy="name it as model.coupling, or leave them out",
        )
    from revmodels.models.catalog import PRESETS

    if not _couples(settings):
        raise StudyError(
            "model.coupling",
            value=name,
            rule=f"{model.name} is not reversible: it has no two streams to couple",
            remedy="leave it out, or make space a list of mappings: one for the reversible networks with it, "
            "one for the others without",
        )
    if name == "additive" and not numbers and model.name in PRESETS:
        return replace(model, coupling=None)
    from revmodels.coupling.linear import find_coupling, numbers_of
    from revmodels.errors import CouplingError

    try:
        numbers = Options(numbers_of(name, **numbers))
        rule = find_coupling(name, **numbers)
    except CouplingError as error:
        raise StudyError("model.coupling_numbers", value=dict(numbers), rule=str(error)) from None
    if precision.coupling == "exact" and rule.ratio is None:
        raise StudyError(
            "model.coupling",
            value=model.coupling_text,
            rule=f"cannot be exact, as precision.coupling says: {rule.why_not_exact}",
            remedy="use precision.coupling: additive, or other numbers, such as 0.9",
        )
    return replace(model, coupling_numbers=numbers)


def _couples(settings: TrialSettings) -> bool:
    """Whether the network of a trial has two streams."""
    from revmodels.models.catalog import PRESETS

    if settings.model.name in PRESETS:
        return PRESETS[settings.model.name].is_reversible
    from study.network import holds_inverse

    return holds_inverse(settings)


@lru_cache(maxsize=65_536)
def _resolved_parts(
    model: ModelSettings, precision: PrecisionSettings, memory: MemorySettings
) -> tuple[ModelSettings, PrecisionSettings, MemorySettings]:
    depth, strategy = _resolved(model, memory.strategy)
    settings: dict[str, Any] = {k: v for k, v in asdict(memory).items() if k != "strategy"}
    return (
        replace(model, depth=depth),
        _resolved_precision(precision, model.name),
        MemorySettings(strategy=strategy, **find_strategy(strategy).resolved(settings)),
    )


def _resolved_precision(settings: PrecisionSettings, model: str) -> PrecisionSettings:
    # The rules that settings break together are those of `revmodels.Precision`, which needs PyTorch. These
    # here break none, so that a plan of trials that are done starts without it.
    if (settings.coupling, settings.matmul, settings.grid_bits) == ("additive", "ieee", None):
        for name, setting in settings_of(PrecisionSettings).items():
            try:
                setting.validated(getattr(settings, name))
            except BrokenRule as error:
                path = f"precision.{name}"
                value = getattr(settings, name)
                raise StudyError(path, value=value, rule=error.rule, remedy=error.remedy) from None
        return settings
    from revmodels import Precision
    from revmodels.errors import PrecisionError
    from revmodels.grid_bits import check_bits
    from revmodels.models.catalog import PRESETS

    try:
        precision = Precision(**asdict(settings))
    except PrecisionError as error:
        path, _, rule = str(error).partition(": ")
        value = getattr(settings, path.removeprefix("precision."), None)
        raise StudyError(path, value=value, rule=rule) from None
    if precision.coupling == "additive":
        return settings
    if model in PRESETS and not PRESETS[model].is_reversible:
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
    from revmodels.errors import DepthError
    from revmodels.models.catalog import PRESETS

    if model.name not in PRESETS:
        from revmodels import list_models

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
    reversible = architecture.is_reversible
    strategy = strategy or default_strategy(invertible=reversible)
    if not is_strategy(strategy):
        remedy = nearest(strategy, STRATEGIES)
        raise StudyError("memory.strategy", value=strategy, rule="must be a known strategy", remedy=remedy)
    if find_strategy(strategy).needs_inverse and not reversible:
        raise StudyError(
            "memory.strategy",
            value=strategy,
            rule=f"{model.name} is not reversible, so there is nothing to rebuild its activations from",
            remedy="use store or checkpoint, or make space a list of mappings: one for the RevNets with "
            "reverse, one for the ResNets without",
        )
    return architecture.depth, strategy


def strategy_of(settings: TrialSettings) -> Strategy:
    """Return the memory strategy of a trial, which is asked for what it needs and how it runs.

    Raises:
        StudyError: The settings cannot be resolved.
    """
    return find_strategy(resolve(settings).memory.strategy or "")


def canonical(settings: TrialSettings) -> dict[str, Any]:
    """Return everything that changes the result, as plain values that JSON keeps exactly.

    Raises:
        StudyError: The settings cannot be resolved, or their data set is missing.
    """
    return {name: json.loads(text) for name, text in _fragments(settings).items()}


def canonical_json(settings: TrialSettings) -> str:
    """`canonical` as JSON with sorted keys and no spaces."""
    return "{" + ",".join(f'"{name}":{text}' for name, text in _fragments(settings).items()) + "}"


def _fragments(settings: TrialSettings) -> dict[str, str]:
    """The canonical JSON of each part under its name, names sorted."""
    settings = resolve(settings)
    scaling, probe = settings.scaling, settings.probe
    probed = probe.enabled and strategy_of(settings).inverts
    evaluate = _fragment(settings.evaluate)
    return {
        **({} if probe.cost else {"cost": "false"}),
        "data": _fragment(settings.data, source=source_of_data(settings)),
        **({} if evaluate == "{}" else {"evaluate": evaluate}),
        "memory": _fragment(settings.memory),
        "model": _fragment(settings.model, source=_source_of_model(settings)),
        **({} if "parallel" in _left_out(scaling) else {"parallel": json.dumps(scaling.parallel)}),
        "precision": _fragment(settings.precision),
        "probe": _fragment(probe, ("cost",)) if probed else "null",
        "recipe": str(RECIPE),
        "seed": json.dumps(settings.seed),
        **_task_fragment(settings),
        "train": _fragment(settings.train, source=_source_of_optimizer(settings)),
        "workers": json.dumps([scaling.min_workers, scaling.workers] if scaling.elastic else scaling.workers),
    }


def source_of_data(settings: TrialSettings) -> str:
    """Return the identity of what the data of a trial hold, or of the source of what loads them.

    Raises:
        StudyError: They are missing.
    """
    from study.data.fingerprint import fingerprint

    data = settings.data
    if is_own("data.name", data.name):
        return f"own:{data.name}:{source_of('data.name', data.name, settings.code)}"
    return fingerprint(data)


def _source_of_model(settings: TrialSettings) -> str | None:
    name = settings.model.name
    return source_of("model.name", name, settings.code) if is_own("model.name", name) else None


def _source_of_optimizer(settings: TrialSettings) -> str | None:
    name = settings.train.optimizer
    return source_of("train.optimizer", name, settings.code) if is_path(name) else None


def _task_fragment(settings: TrialSettings) -> dict[str, str]:
    """The task, unless it is what such data are for."""
    task = settings.task
    if task.name is None or task.name == task_name(replace(settings, task=TaskSettings())):
        return {}
    own = is_own("task.name", task.name)
    source = source_of("task.name", task.name, settings.code) if own else None
    return {"task": _fragment(task, source=source)}


def _left_out(section: Any) -> tuple[str, ...]:
    """Settings of a section that are no part of the identity, have their default, or are not used."""
    kind: Any = type(section)
    return tuple(
        name
        for name, setting in settings_of(kind).items()
        if setting.identity == NEVER
        or (setting.identity == IF_CHANGED and getattr(section, name) == getattr(kind, name))
        or setting.unused(section)
    )


def _fragment(section: Any, unused: tuple[str, ...] = (), source: str | None = None) -> str:
    """The canonical JSON of a section, without what it leaves out and what is `unused` beside the others."""
    values = tuple(vars(section).values())
    return _section_json(section, tuple(map(type, values)), (*unused, *_left_out(section)), source)


@lru_cache(maxsize=65_536)
def _section_json(
    section: Any, types: tuple[type, ...], leave_out: tuple[str, ...], source: str | None
) -> str:
    """JSON of a section, kept because the trials of a study share theirs; `types` part 1 from True."""
    values = {key: value for key, value in asdict(_plain_numbers(section)).items() if key not in leave_out}
    if source is not None:
        values["source"] = source
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def trial_id(settings: TrialSettings) -> str:
    """16 hexadecimal digits of the SHA-256 of `canonical_json`."""
    return _hashed(canonical_json(settings))


def trial_ids(settings: TrialSettings, seeds: Iterable[int]) -> list[str]:
    """`trial_id` of the same settings under each of several seeds, which is faster than one by one."""
    parts = _fragments(settings)
    names = tuple(parts)
    before = ",".join(f'"{name}":{parts[name]}' for name in names if name < "seed")
    after = ",".join(f'"{name}":{parts[name]}' for name in names if name > "seed")
    return [_hashed(f'{{{before},"seed":{seed:d},{after}}}') for seed in seeds]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain_numbers(settings: Any) -> Any:
    """The same dataclass with a float wherever its type says float, so that 1 and 1.0 are one value."""
    hints, changed = get_type_hints(type(settings)), {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and hints[field.name] in (float, float | None)
        ):
            changed[field.name] = float(value)
    return replace(settings, **changed)
