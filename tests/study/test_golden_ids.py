"""Trial ids of the built-in studies never change: rows that exist would be trained again under another id."""

import json
from pathlib import Path

import pytest

from study.plan.expand import make_plan
from study.spec.load import builtin_studies, load_study

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trial_ids.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_built_in_studies_keep_their_trial_ids(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REVSTUDY_DATA", raising=False)  # files that are at hand are part of the identity
    monkeypatch.chdir(tmp_path)
    study, _, scale = name.partition("@")
    trials = make_plan(load_study(study, scale=scale or None)).trials
    assert " ".join(trial.trial_id for trial in trials) == GOLDEN[name]


def test_no_built_in_study_is_left_out() -> None:
    assert {name.partition("@")[0] for name in GOLDEN} <= set(builtin_studies())
