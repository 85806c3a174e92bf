"""`revstudy fit` on stores whose law is known."""

from __future__ import annotations

import json

import pytest

from tests.analysis.laws.known_law import TRUTH, write_law
from tests.cli.test_imports import imported


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    return write_law(tmp_path_factory.mktemp("law") / "store")


def test_help_has_an_example(revstudy):
    answer = revstudy("fit", "--help")
    assert answer.code == 0
    assert "revstudy fit" in answer.out.partition("Example")[2]
    assert "--json" in answer.out


def test_a_known_law_is_printed_with_its_intervals_and_the_rung_held_out(revstudy, law):
    answer = revstudy("fit", "law", "--store", law, "--json", "--resamples", 100)
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["law"]["a"]["value"] == pytest.approx(TRUTH["a"], abs=0.02)
    assert found["law"]["a"]["low"] < found["law"]["a"]["value"] < found["law"]["a"]["high"]
    assert abs(found["held_out"]["error"]) < 0.02
    text = revstudy("fit", "law", "--store", law, "--resamples", 100).out
    assert "The largest rung, 1.02e+09 parameters, predicted from the others" in text
    assert f"{found['law']['E']['value']:.4g}" in text


def test_two_columns_are_fitted(revstudy, law):
    options = ("--x", "parameters", "--y", "loss_val", "--by", "tokens_seen", "--json")
    found = json.loads(revstudy("fit", "law", "--store", law, *options).out)
    assert len(found["relations"]) == 5
    assert all(one["power"]["value"] < 0 for one in found["relations"])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--loss", "accuracy"], 2, "loss_val"),
        (["--evaluations", "some"], 2, "choose one of auto, final, all"),
        (["--where", "nonsense > 1"], 2, "nonsense"),
        (["--where", "seed > 9"], 2, "no trial for which seed > 9 holds"),
        (["--x", "depth"], 2, "--x and --y go together"),
        (["--x", "depht", "--y", "loss_val"], 2, "did you mean 'depth'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(revstudy, law, options, code, message):
    answer = revstudy("fit", "law", "--store", law, *options)
    assert (answer.code, "Traceback" in answer.err) == (code, False)
    assert message in answer.err


def test_a_store_that_is_not_there_and_a_study_without_a_law(revstudy, tmp_path):
    assert revstudy("fit", "law", "--store", tmp_path / "none").code == 3
    store = write_law(tmp_path / "store", sizes=(10**6,), data=(10**8,))
    answer = revstudy("fit", "law", "--store", store, "--evaluations", "final")
    assert answer.code == 2
    assert "at least six rows" in answer.err


def test_fit_imports_neither_torch_nor_ray(law):
    assert not imported("fit", "law", "--store", law) & {"torch", "ray", "optuna", "pandas", "plotly"}
