"""Every key of a study file is explained, and what `init` writes is a study."""

from __future__ import annotations

import pytest
import yaml

from study.errors import StudyError
from study.spec.explain import explain
from study.spec.load import parse_study
from study.spec.scaffold import TASKS, study_text


def keys(section: str = "") -> list[str]:
    """Every key that explanations lead to, from the top of the file."""
    from study.spec.study import Study

    names = list(explain(section).keys) if section else list(Study.json_schema()["properties"])
    here = [f"{section}.{name}" if section else name for name in names]
    return [*here, *(key for name in here if name.count(".") < 3 for key in keys(name))]


def test_every_key_has_a_meaning_and_a_kind():
    found = keys()
    assert {"train.learning_rate", "search.pruning.method", "model.width"} <= set(found)
    for key in found:
        explanation = explain(key)
        assert explanation.meaning and explanation.kind, key
        assert "\n" not in explanation.meaning, key


def test_a_setting_of_trials_says_its_column_and_its_part_in_the_identity():
    found = explain("train.learning_rate")
    assert (found.default, found.values, found.column) == (0.1, "more than 0", "learning_rate")
    assert found.identity == "yes" and found.swept
    assert explain("data.root").identity.startswith("no")
    assert explain("budget.time_s").identity == ""


@pytest.mark.parametrize(("wrong", "near"), [("train.lerning_rate", "learning_rate"), ("trian", "train")])
def test_an_unknown_key_names_the_nearest(wrong, near):
    with pytest.raises(StudyError, match=f"did you mean '[a-z.]*{near}'"):
        explain(wrong)


@pytest.mark.parametrize("task", TASKS)
def test_a_first_study_file_is_a_study(task):
    text = study_text("depth", task=task, minutes=5)
    study = parse_study(yaml.safe_load(text))
    assert study.name == "depth"
    assert study.budget.time_s == 300
    assert "memory.strategy" in text
