"""The settings of one trial, all sections together, and what follows from their fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

from study.settings.data import DataSettings, TaskSettings
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.run import ProbeSettings, ScalingSettings
from study.settings.setting import NEVER, Options, Setting
from study.settings.train import EvaluateSettings, TrainSettings


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """One point of a study, fully resolved: what `study.train.trial.train_trial` runs."""

    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    precision: PrecisionSettings = field(default_factory=PrecisionSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    seed: Annotated[int, Setting("The seed of weights, data order and dropout.", column="seed")] = 0
    code: Annotated[
        str | None,
        Setting(
            "The folder that import paths are looked up in; without it, what is installed.", identity=NEVER
        ),
    ] = None

    def with_seed(self, seed: int) -> TrialSettings:
        """The same settings under another seed. (`dataclasses.replace` takes ten times as long.)"""
        other = object.__new__(TrialSettings)
        other.__dict__.update(self.__dict__, seed=seed)
        return other

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, ready for JSON and for `settings_from_dict`."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A planned trial: its identity, the study that asked for it, its settings, and what proposed it.

    `origin` is ``grid`` or the sampler's name. `memory_predicted_bytes` is filled by a plan that predicts.
    """

    trial_id: str
    study: str
    settings: TrialSettings
    origin: str = "grid"
    memory_predicted_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, for JSON or another process."""
        return asdict(self)


def settings_from_dict(values: dict[str, Any]) -> TrialSettings:
    """Rebuild `TrialSettings` from `TrialSettings.to_dict`.

    Returns:
        The settings.

    Raises:
        TypeError: A key is not a field of its section.
    """
    return _build(TrialSettings, values)


@lru_cache(maxsize=32)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: type, values: dict[str, Any]) -> Any:
    hints = _hints(kind)
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}; fields: {', '.join(sorted(known))}")
    return kind(**{k: _value(hints[k], v) for k, v in values.items()})


def _value(hint: Any, value: Any) -> Any:
    if hint is Options:
        return Options(value)
    return _build(hint, value) if isinstance(hint, type) and is_dataclass(hint) else value


@lru_cache(maxsize=32)
def settings_of(kind: Any) -> dict[str, Setting]:
    """Return what is to be known of each field of a settings dataclass, by its name.

    Args:
        kind: The dataclass. Fields that are dataclasses themselves are left out.
    """
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: part for name, hint in hints.items() for part in get_args(hint) if isinstance(part, Setting)
    }


def sections() -> dict[str, Any]:
    """The dataclass of each section of a trial's settings, by its name."""
    return {name: kind for name, kind in _hints(TrialSettings).items() if is_dataclass(kind)}


def columns_of(settings: TrialSettings) -> dict[str, Any]:
    """The settings that have a column of their own in a trial's row, as the study file gives them."""
    found = {}
    parts: list[Any] = [*(getattr(settings, name) for name in sections()), settings]
    for part in parts:
        kind: Any = type(part)
        hints = _hints(kind)
        for name, setting in settings_of(kind).items():
            if setting.column:
                value = getattr(part, name)
                real = value is not None and hints[name] in (float, float | None)
                found[setting.column] = float(value) if real else value
    return found
