"""Study files that are wrong: exit code 2, where, what, why, what instead; no traceback, nothing written."""

from __future__ import annotations

import pytest

CASES = {
    "unknown section": ({"modell": {}}, ["modell", "model"]),
    "unknown key": ({"train": {"epoch": 3}}, ["train.epoch", "epochs"]),
    "wrong type": ({"train": {"epochs": "ten"}}, ["train.epochs", "'ten'"]),
    "negative number": ({"train": {"learning_rate": -0.1}}, ["train.learning_rate", "-0.1"]),
    "impossible depth": ({"model": {"name": "revnet38", "depth": 40}}, ["model.depth", "40", "38"]),
    "depth in a grid": (
        {"space": {"model.depth": {"grid": [26, 27]}}},
        ["space.model.depth.grid[1]", "27", "26"],
    ),
    "unknown model": ({"model": {"name": "revnet39"}}, ["model.name", "revnet39", "revnet38"]),
    "unknown data set": ({"data": {"name": "digit"}}, ["data.name", "'digit'", "digits"]),
    "missing folder": ({"data": {"name": "parquet:no/such/folder"}}, ["data.name", "no/such/folder"]),
    "unknown dtype": ({"precision": {"compute": "float16"}}, ["precision.compute", "float16", "fp16"]),
    "unknown strategy": ({"memory": {"strategy": "reversed"}}, ["memory.strategy", "reversed", "reverse"]),
    "reversing a ResNet": (
        {"model": {"name": "resnet32"}, "memory": {"strategy": "reverse"}},
        ["memory.strategy", "resnet32", "store"],
    ),
    "empty space": ({"space": {}}, ["space"]),
    "empty grid": ({"space": {"model.depth": {"grid": []}}}, ["space.model.depth.grid"]),
    "unknown path": ({"space": {"model.dept": {"grid": [26]}}}, ["model.dept", "model.depth"]),
    "unknown sampler": (
        {
            "space": {"model.depth": {"grid": [26]}},
            "search": {"method": "optuna", "trials": 2, "sampler": "tpee"},
        },
        ["search.sampler", "tpee", "tpe"],
    ),
    "resources in a search": (
        {
            "space": {"scaling.workers": {"choice": [1, 2]}},
            "search": {"method": "optuna", "trials": 2},
        },
        ["scaling.workers"],
    ),
}


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize("case", CASES)
def test_a_broken_rule_is_told_with_place_value_and_remedy(revstudy, write_study, store, verb, case):
    sections, parts = CASES[case]
    answer = revstudy(verb, write_study(name="bad", **sections), "--store", store)
    assert answer.code == 2, answer.err
    assert answer.err.startswith("revstudy: ")
    assert "Traceback" not in answer.err
    for part in parts:
        assert part in answer.err
    assert answer.out == ""
    assert not store.exists()


@pytest.mark.parametrize("text", ["name: [unclosed", "- a list", "", "just words"])
def test_a_file_that_is_no_mapping_is_refused(revstudy, write_study, store, text):
    answer = revstudy("run", write_study(text), "--store", store)
    assert answer.code == 2
    assert answer.err.startswith("revstudy: ")
    assert "study.yaml" in answer.err
    assert "Traceback" not in answer.err
    assert not store.exists()


@pytest.mark.parametrize("name", ["quikstart", "no/such/file.yaml"])
def test_a_study_that_does_not_exist_is_refused(revstudy, store, name):
    answer = revstudy("plan", name, "--store", store)
    assert answer.code == 2
    assert name in answer.err
    assert "Traceback" not in answer.err


def test_the_nearest_built_in_study_is_named(revstudy):
    assert "quickstart" in revstudy("plan", "quikstart").err


@pytest.mark.parametrize("arguments", [["plam"], ["run"], ["run", "smoke", "--stroe", "x"]])
def test_wrong_usage_exits_2(revstudy, arguments):
    answer = revstudy(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err
