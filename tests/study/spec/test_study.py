import json
from dataclasses import fields

import pytest

from study.errors import StudyError
from study.settings.model import STRATEGIES
from study.settings.train import TrainSettings
from study.settings.trial import sections, settings_of
from study.spec.fields import SECTIONS
from study.spec.load import load_study, parse_study
from study.spec.study import Study
from study.spec.yaml_file import parse_yaml


def problems(text: str) -> dict[str, str]:
    with pytest.raises(StudyError) as caught:
        parse_study(parse_yaml(text))
    assert caught.value.exit_code == 2
    return {problem.path: str(problem) for problem in caught.value.problems}


def test_every_section_of_a_trial_is_checked_and_a_section_of_a_study():
    assert set(SECTIONS) == set(sections())
    for name, kind in sections().items():
        assert SECTIONS[name].validate_python({}) == kind() == getattr(parse_study({"name": "s"}), name)


BAD = [
    ("modle: {}", "modle", "unknown key; received {}; did you mean 'model'?"),
    ("model: {nam: x}", "model.nam", "unknown key; received 'x'; did you mean 'name'?"),
    (
        "train: {epochs: '10'}",
        "train.epochs",
        "must be a whole number; received '10'; write it without quotes",
    ),
    ("train: {epochs: 2.5}", "train.epochs", "must be a whole number; received 2.5; the nearest is 2"),
    ("train: {epochs: true}", "train.epochs", "must be a whole number; received True"),
    ("train: {epochs: -3}", "train.epochs", "must be at least 1; received -3; the nearest is 1"),
    ("train: {learning_rate: -0.1}", "train.learning_rate", "must be more than 0; received -0.1"),
    ("train: {weight_decay: .inf}", "train.weight_decay", "must be a finite number; received inf"),
    ("train: {optimizer: sdg}", "train.optimizer", "received 'sdg'; did you mean 'sgd'? Choices: sgd, adamw"),
    ("model: 3", "model", "must be a mapping; received 3"),
    (
        "data: {name: digit}",
        "data.name",
        "known data set; received 'digit'; did you mean 'digits'?",
    ),
    ("data: {name: 'parquet:'}", "data.name", "must name a folder after the colon"),
    ("data: {name: 'synthetic:3x32'}", "data.name", "for example synthetic:3x32x32x10"),
    (
        "precision: {compute: fp8}",
        "precision.compute",
        "received 'fp8'; did you mean 'fp64'? Choices: fp64",
    ),
    ("memory: {strategy: revers}", "memory.strategy", "did you mean 'reverse'?"),
    ("space: {}", "space", "must not be empty"),
    ("space: []", "space", "must not be empty"),
    ("space: {model.depth: {grid: []}}", "space.model.depth.grid", "must not be empty; received []"),
    ("space: {model.dept: {grid: [1]}}", "space.model.dept", "did you mean 'model.depth'?"),
    ("space: {seed: {grid: [1]}}", "space.seed", "list seeds under the key seeds"),
    (
        "space: {model.depth: [1, 2]}",
        "space.model.depth",
        "received [1, 2]; for example {grid: [1, 2]}",
    ),
    ("space: {model.depth: {gird: [1]}}", "space.model.depth.gird", "did you mean 'grid'?"),
    ("space: {model.depth: {grid: [1], int: [1, 2]}}", "space.model.depth", "keep one of grid, int"),
    (
        "space: {model.depth: {grid: [[1]]}}",
        "space.model.depth.grid[0]",
        "a single value; received [1]",
    ),
    (
        "space: {train.epochs: {grid: [1, -2]}}",
        "space.train.epochs.grid[1]",
        "must be at least 1; received -2",
    ),
    (
        "space: [{train.epochs: {grid: [x]}}]",
        "space[0].train.epochs.grid[0]",
        "must be a whole number; received 'x'",
    ),
    (
        "space: {train.momentum: {uniform: [0.9, 0.1]}}",
        "space.train.momentum",
        "needs its low bound below its high bound",
    ),
    (
        "space: {train.momentum: {uniform: [0.1]}}",
        "space.train.momentum.uniform",
        "[low, high]; received [0.1]",
    ),
    (
        "space: {train.learning_rate: {loguniform: [0, 1]}}",
        "space.train.learning_rate.loguniform[0]",
        "must be more than 0",
    ),
    (
        "space: {train.epochs: {int: [1, 3]}}",
        "space.train.epochs.int",
        "a grid step takes lists of values; received [1, 3]",
    ),
    ("seeds: []", "seeds", "must not be empty"),
    ("seeds: [0, -1]", "seeds[1]", "must be at least 0; received -1"),
    ("search: {method: optuna}", "search", "an optuna step needs a number of trials"),
    ("search: {method: optuna, trials: 2}", "search.space", "an optuna step searches one space"),
    ("search: [{}, {trials: 2}]", "search[1]", "a grid step has no trials"),
    ("search: {method: grids}", "search.method", "did you mean 'grid'?"),
    (
        "search: {method: optuna, trials: 2, objectives: {accuracy_test: max}}",
        "search.objectives.accuracy_test",
        "must be one of the choices",
    ),
    (
        "search: {method: optuna, trials: 2, objectives: {accuracy_val: maximum}}",
        "search.objectives.accuracy_val",
        "did you mean 'max'?",
    ),
    ("name: 'a/b'", "name", "must be letters, digits"),
    ("1: 2", "[1]", "a key must be text"),
]


@pytest.mark.parametrize(("text", "path", "words"), BAD, ids=[path for _, path, _ in BAD])
def test_bad_input_names_path_value_rule_and_remedy(text, path, words):
    header = "" if text.startswith("name") else "name: s\n"
    found = problems(header + text)
    assert list(found) == [path]
    assert found[path].startswith(f"{path}: ")
    assert words in found[path]


def test_every_problem_is_reported():
    found = problems("{name: s, train: {epochs: 0, optimizer: x}, model: {widht: 1}, seeds: [a]}")
    assert set(found) == {"train.epochs", "train.optimizer", "model.widht", "seeds[0]"}


def test_bad_entries_do_not_make_a_list_empty():
    assert list(problems("{name: s, search: [{methd: grid}]}")) == ["search[0].methd"]


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("name: [1\nb: }", "line 2", "expected"),
        ("a: 1\na: 2", "line 2, column 1", "key 'a' is repeated"),
        ("a: 1\n\tc: d", "line 2", "cannot start any token"),
    ],
)
def test_text_that_is_no_yaml(tmp_path, text, where, reason):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(StudyError) as caught:
        load_study(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: {where}")
    assert "must be YAML that parses" in message
    assert reason in message
    assert [f.name for f in tmp_path.iterdir()] == ["bad.yaml"]


def test_file_that_is_no_mapping(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("- 1")
    with pytest.raises(StudyError, match=r"must be a mapping of sections; received \[1\]"):
        load_study(file)


def test_missing_file_and_unknown_builtin(tmp_path):
    with pytest.raises(StudyError, match=r"must be a readable study file \(No such file or directory\)"):
        load_study(tmp_path / "none.yaml")
    with pytest.raises(StudyError, match="the name of a built-in study; received 'quickstrat'"):
        load_study("quickstrat")


def test_numbers_as_people_write_them():
    assert parse_yaml("[1e-3, 2E5, .5e1, 1.5, 3]") == [0.001, 200000.0, 5.0, 1.5, 3]


def test_name_defaults_to_the_file(tmp_path):
    file = tmp_path / "depths.yaml"
    file.write_text("seeds: [1, 2]")
    assert load_study(file).name == "depths"


def test_python_file(tmp_path):
    file = tmp_path / "widths.py"
    file.write_text("study = {'space': {'model.width': {'grid': [w / 4 for w in (1, 2)]}}}")
    study = load_study(file)
    assert study.name == "widths"
    assert study.space["model.width"].values == (0.25, 0.5)
    file.write_text("1 / 0")
    with pytest.raises(StudyError, match=r"must be Python that runs \(ZeroDivisionError"):
        load_study(file)


def test_study_survives_its_plain_values():
    study = parse_study(
        parse_yaml(
            "{name: s, space: [{model.depth: {grid: [26, 38]}}, {train.epochs: {grid: [1]}}], seeds: [1], "
            "search: [{method: grid}, {method: optuna, trials: 3, "
            "space: {train.batch_size: {int: [8, 64], step: 8}},"
            " objectives: {accuracy_val: max, memory_peak_bytes: min}}]}"
        )
    )
    assert parse_study(json.loads(json.dumps(study.to_dict()))) == study


def test_schema_is_strict_and_lists_choices():
    schema = Study.json_schema()
    assert schema["additionalProperties"] is False
    assert "adamw" in json.dumps(schema["$defs"]["TrainSettings"]["properties"]["optimizer"])
    assert {"required": ["int"]} in schema["$defs"]["Axis"]["oneOf"]


def test_validation_imports_no_torch():
    import subprocess
    import sys

    code = "import study.spec, sys; study.spec.parse_study({'name': 's'}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_key_of_a_study_file_has_a_sentence_in_the_schema():
    schema = Study.json_schema()
    silent = [
        f"{name}.{key}"
        for name, part in {"Study": schema, **schema["$defs"]}.items()
        for key, value in part.get("properties", {}).items()
        if not value.get("description", "").strip().endswith(".")
    ]
    assert silent == []
    for kind in sections().values():
        assert set(settings_of(kind)) == {f.name for f in fields(kind)}


def test_limits_are_in_the_schema_as_they_are_checked():
    train = Study.json_schema()["$defs"]["TrainSettings"]["properties"]
    assert (train["epochs"]["minimum"], train["epochs"]["default"]) == (1, 10)
    assert train["momentum"]["exclusiveMaximum"] == 1
    memory = Study.json_schema()["$defs"]["MemorySettings"]["properties"]
    assert memory["strategy"]["enum"] == [*STRATEGIES, None]


def test_sections_given_as_dataclasses_are_checked_as_well():
    values = {"name": "s", "train": TrainSettings(epochs=0)}
    with pytest.raises(StudyError, match=r"train.epochs: must be at least 1; received 0"):
        parse_study(values)
