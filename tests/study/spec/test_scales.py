"""Scales of a study: what they change, what they leave, and what is refused."""

import pytest

from study.errors import StudyError
from study.plan.expand import make_plan
from study.spec.load import builtin_studies, load_study, parse_study

VALUES = {
    "name": "depth",
    "model": {"name": "revnet38", "width": 0.5},
    "train": {"epochs": 7, "batch_size": 64},
    "space": {"model.depth": {"grid": [26, 38]}},
    "search": [{"method": "grid"}, {"method": "grid", "space": {"train.epochs": {"grid": [9]}}}],
    "scales": {
        "short": {"train": {"epochs": 2}},
        "smoke": {"model": {"width": 0.25}, "space": {"model.depth": {"grid": [14]}}, "seeds": [3]},
    },
}


def test_a_scale_changes_what_it_gives_and_leaves_the_rest():
    study = parse_study(VALUES)
    short, smoke = study.at_scale("short"), study.at_scale("smoke")
    assert (short.name, smoke.name) == ("depth-short", "depth-smoke")
    assert (short.train.epochs, short.train.batch_size) == (2, 64)
    assert (short.search, short.space, short.model) == (study.search, study.space, study.model)
    assert (smoke.model.name, smoke.model.width, smoke.seeds) == ("revnet38", 0.25, (3,))
    assert [list(space["model.depth"].values) for space in smoke.all_spaces().values()] == [[14]]
    assert short.scales == {}


def test_a_study_with_scales_survives_a_round_trip():
    study = parse_study(VALUES)
    assert parse_study(study.to_dict()) == study
    assert parse_study(study.to_dict()).at_scale("short") == study.at_scale("short")
    assert "scales" not in study.at_scale("short").to_dict()


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"tran": {}}, "scales.small.tran: unknown key; received {}; did you mean 'train'?"),
        (
            {"train": {"epoch": 1}},
            "scales.small.train.epoch: unknown key; received 1; did you mean 'epochs'?",
        ),
        ({"train": {"epochs": 0}}, "scales.small.train.epochs: must be at least 1; received 0"),
        ({"space": {"model.dept": {"grid": [1]}}}, "scales.small.space.model.dept: must be the dotted path"),
        (
            {"space": {"train.epochs": {"grid": [0]}}},
            "scales.small.space.train.epochs.grid[0]: must be at least",
        ),
    ],
)
def test_a_broken_scale_is_named_with_its_place(scale, message):
    with pytest.raises(StudyError) as found:
        parse_study({**VALUES, "scales": {"small": scale}})
    assert message in str(found.value)


def test_an_unknown_scale_is_refused_with_the_nearest():
    with pytest.raises(StudyError, match="must be a scale of depth; received 'smok'; did you mean 'smoke'"):
        parse_study(VALUES).at_scale("smok")
    with pytest.raises(StudyError, match="the study has none; leave --scale out"):
        load_study("smoke", "tiny")


def test_every_study_of_the_paper_has_a_smoke_scale():
    papers = [name for name in builtin_studies() if name.startswith("paper-") or name == "ladder"]
    assert len(papers) == 6
    for name in papers:
        assert load_study(name, "smoke").name == f"{name}-smoke"


def test_the_demo_trains_trials_of_the_quickstart_and_few_in_bf16():
    """Without instructions for bf16, arithmetic in it takes several times as long."""
    whole, demo = (
        {trial.trial_id: trial.settings for trial in make_plan(load_study("quickstart", scale)).trials}
        for scale in (None, "demo")
    )
    assert set(demo) < set(whole)
    dropped = [whole[trial] for trial in set(whole) - set(demo)]
    assert {settings.precision.compute for settings in dropped} == {"bf16"}
    assert sum(settings.precision.compute == "bf16" for settings in demo.values()) == 3
