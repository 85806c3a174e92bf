"""The tables of networks and data sets."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from revmodels import create_model, list_models
from study.catalog import model_rows


@pytest.mark.parametrize("name", list_models())
def test_parameters_are_those_of_the_network_that_is_built(name):
    (row,) = model_rows(name)
    for classes in (10, 100, 1000):
        if (shown := row[f"parameters_{classes}"]) is not None:
            with torch.device("meta"):
                model = create_model(name, num_classes=classes)
            assert shown == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "code",
    [
        "from study.catalog import dataset_rows; dataset_rows()",
        "from study.plan import make_plan; from study.spec import load_study; make_plan(load_study('smoke'))",
        "import study; dir(study); study.Study",
    ],
)
def test_what_trains_nothing_imports_neither_torch_nor_ray(code):
    end = "; import sys; print([name for name in ('torch', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
