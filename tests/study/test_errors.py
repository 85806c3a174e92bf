import pickle

from study.errors import DataError, Problem, StoreError, StudyError, nearest, shorten


def test_message_has_path_rule_value_and_remedy():
    error = StudyError("train.epochs", value=-1, rule="must be at least 1", remedy="the nearest is 1")
    assert str(error) == "train.epochs: must be at least 1; received -1; the nearest is 1"
    assert (error.path, error.value, error.rule, error.remedy) == (
        "train.epochs",
        -1,
        "must be at least 1",
        "the nearest is 1",
    )


def test_nothing_received_differs_from_none_received():
    assert str(StudyError("name", rule="is required")) == "name: is required"
    assert str(StudyError("name", value=None, rule="must be text")) == "name: must be text; received None"


def test_all_problems_are_listed_under_the_file():
    problems = [Problem(path=p, value=1, rule="must be text") for p in ("a", "b")]
    error = StudyError(problems=problems).in_file("s.yaml")
    assert str(error).splitlines() == [
        "s.yaml: 2 problems",
        "  a: must be text; received 1",
        "  b: must be text; received 1",
    ]


def test_exit_codes():
    assert (StudyError.exit_code, DataError.exit_code, StoreError.exit_code) == (2, 2, 3)


def test_errors_survive_another_process():
    error = DataError("data.name", rule="is required", source="s.yaml")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DataError
    assert str(copy) == str(error) == "s.yaml: data.name: is required"


def test_nearest_names_the_closest_and_all_choices():
    assert nearest("reverze", ["store", "reverse"]) == "did you mean 'reverse'? Choices: store, reverse"
    assert nearest("zzz", ["store", "reverse"]) == "Choices: store, reverse"


def test_long_values_are_shortened():
    text = shorten("x" * 500)
    assert len(text) < 90
    assert " ... " in text
