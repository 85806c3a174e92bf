"""The tables of networks and data sets."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from revmodels import create_model, list_models
from revmodels.models.catalog import PRESETS
from study import catalog
from study.catalog import PARAMETERS, count_parameters, model_rows

IMAGES = [name for name in list_models() if PRESETS[name].stem != "tokens"]
LANGUAGE = [name for name in list_models() if name not in IMAGES]


@pytest.mark.parametrize("name", LANGUAGE)
def test_parameters_of_a_language_model_are_told_with_and_without_embeddings(name):
    (row,) = model_rows(name)
    with torch.device("meta"):
        model = create_model(name)
    embeddings = {model.stem.weight, model.head.output.weight}
    assert row["parameters"] == sum(p.numel() for p in model.parameters())
    assert row["parameters_non_embedding"] == row["parameters"] - sum(p.numel() for p in embeddings)
    assert row["parameters_10"] is None
    for column in ("family", "block", "depth"):
        assert row[column] == getattr(model, column)
    assert row["strategies"] == ", ".join(model.strategies)


@pytest.mark.parametrize("name", IMAGES)
def test_parameters_are_those_of_the_network_that_is_built(name):
    (row,) = model_rows(name)
    for classes in (10, 100, 1000):
        if (shown := row[f"parameters_{classes}"]) is not None:
            with torch.device("meta"):
                model = create_model(name, num_classes=classes)
            assert shown == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", IMAGES)
def test_the_table_has_what_counting_the_parameters_of_the_built_network_finds(name):
    assert PARAMETERS[name] == count_parameters(name), f"write it into PARAMETERS of {catalog.__file__}"


@pytest.mark.parametrize("name", ["revnet110", "resnet50", "irevnet", "revvit_small"])
def test_a_preset_that_the_table_has_not_is_counted(monkeypatch, name):
    expected = model_rows(name)
    monkeypatch.delitem(PARAMETERS, name)
    assert model_rows(name) == expected


@pytest.mark.parametrize("name", IMAGES)
def test_each_row_tells_what_the_network_itself_tells(name):
    (row,) = model_rows(name)
    with torch.device("meta"):
        model = create_model(name, num_classes=10)
    for column in ("family", "block", "depth"):
        assert row[column] == getattr(model, column)
    assert row["stem"] == model.architecture.stem
    assert row["strategies"] == ", ".join(model.strategies)


@pytest.mark.parametrize(
    "code",
    [
        "from study.catalog import model_rows; model_rows()",
        "from study.catalog import dataset_rows; dataset_rows()",
        "from study.plan import make_plan; from study.spec import load_study; make_plan(load_study('smoke'))",
        "import study; dir(study); study.Study",
    ],
)
def test_what_trains_nothing_imports_neither_torch_nor_ray(code):
    end = "; import sys; print([name for name in ('torch', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_code_that_trains_a_trial_is_had_without_the_compiler():
    code = "import sys, study.train.trial; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
