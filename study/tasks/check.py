"""Whether settings go with the task of a trial, and its metrics. Only tasks of one's own need PyTorch."""

from __future__ import annotations

from study.code import is_own
from study.errors import StudyError, nearest
from study.settings.data import is_text
from study.settings.trial import TrialSettings
from study.tasks.metrics import METRICS, Metric
from study.tasks.naming import task_name


def metrics_of(settings: TrialSettings) -> tuple[tuple[Metric, ...], Metric]:
    """Return the metrics of a trial, and the one by which it is judged.

    Raises:
        StudyError: There is no such task.
    """
    name = task_name(settings)
    if name in METRICS:
        return METRICS[name], METRICS[name][1]
    from study.tasks.registry import task_of

    task = task_of(settings)
    return task.metrics, next(metric for metric in task.metrics if metric.name == task.score)


def _check_model(settings: TrialSettings, name: str) -> None:
    from revmodels.models.catalog import PRESETS
    from revmodels.models.decoder import LanguageArchitecture

    model = settings.model.name
    fits = {n for n, a in PRESETS.items() if isinstance(a, LanguageArchitecture) == (name == "language")}
    if model in PRESETS and model not in fits:
        raise StudyError(
            "model.name",
            value=model,
            rule=f"is no network for {name}",
            remedy=f"for example {'revgpt_1m' if name == 'language' else 'revnet38'}",
        )


def check_task(settings: TrialSettings) -> None:
    """Refuse settings that mean nothing to the task of a trial.

    Raises:
        StudyError: There is no such task, or there are such settings.
    """
    name, data = task_name(settings), settings.data
    if is_own("task.name", name):
        from study.tasks.registry import task_of

        task_of(settings).check(settings)
        return
    if name not in METRICS:
        raise StudyError("task.name", value=name, rule="must be a known task", remedy=nearest(name, METRICS))
    if settings.task.options:
        raise StudyError(
            "task.options",
            value=dict(settings.task.options),
            rule=f"{name} has no options",
            remedy="take them out",
        )
    _check_model(settings, name)
    text = is_text(data.name)
    own_data = is_own("data.name", data.name)
    if text != (name == "language") and not own_data:
        raise StudyError(
            "task.name",
            value=name,
            rule=f"{data.name} is {'a text' if text else 'no text'}",
            remedy="leave the task out, or give data of its kind",
        )
    if own_data and data.label_noise:
        raise StudyError(
            "data.label_noise",
            value=data.label_noise,
            rule="changes labels of images, and the data are a function of your own",
            remedy="take it out, and return such labels",
        )
    if name == "language":
        unused = {
            "train.label_smoothing": settings.train.label_smoothing,
            "data.augment": data.augment,
            "data.label_noise": data.label_noise,
            "data.image_size": data.image_size,
        }
    else:
        unused = {"data.context_length": data.context_length, "train.tokens": settings.train.tokens}
    for path, value in unused.items():
        if value:
            what = "a text" if name == "language" else "examples that have no tokens"
            raise StudyError(path, value=value, rule=f"means nothing for {what}", remedy="take it out")
