"""Rules of the section scaling: numbers of workers, sharding, parts of a GPU, trials that run alone."""

from __future__ import annotations

import json

import pytest

from study.cluster.session import Cluster, ClusterError
from study.errors import StudyError
from study.executors.tune import concurrency
from study.identity import canonical_json, trial_id
from study.plan.expand import make_plan
from study.plan.machine import Machine
from study.rerun import _settings
from study.settings.run import ScalingSettings
from study.spec.load import parse_study
from study.spec.study import Study
from study.store.rows import settings_columns

BAD = [
    ({"workers": 3}, "train.batch_size", "must be a multiple of the 3 workers that share it"),
    ({"workers": {"min": 2, "max": 3}}, "train.batch_size", "any number of 2 to 3 workers"),
    ({"workers": {"min": 4, "max": 2}}, "scaling.min_workers", "for example workers: {min: 2, max: 4}"),
    ({"workers": 2, "executor": "tune"}, "scaling.executor", "one worker for a trial, not 2"),
    ({"parallel": "fsdp2"}, "scaling.parallel", "and there is one"),
    ({"gpus_per_worker": 0.25}, "scaling.gpus_per_worker", "set probe.cost: false"),
    ({"gpus_per_worker": 1.5}, "scaling.gpus_per_worker", "use 1 or 2"),
    ({"workers": 2, "gpus_per_worker": 0.5}, "scaling.gpus_per_worker", "one worker a GPU"),
]


@pytest.mark.parametrize(("scaling", "path", "words"), BAD, ids=[words for _, _, words in BAD])
def test_what_does_not_go_together_is_refused_with_its_reason(make_study, scaling, path, words):
    with pytest.raises(StudyError) as caught:
        make_plan(make_study(scaling=scaling))
    assert [problem.path for problem in caught.value.problems] == [path]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("scaling", "path"),
    [
        ({"workers": {"min": 1}}, "scaling.workers"),
        ({"workers": {"min": 0, "max": 2}}, "scaling.min_workers"),
        ({"workers": "2"}, "scaling.workers"),
        ({"placement": "spread"}, "scaling.placement"),
        ({"parallel": "fsdp"}, "scaling.parallel"),
    ],
)
def test_mistakes_are_found_where_they_are(scaling, path):
    with pytest.raises(StudyError) as caught:
        parse_study({"name": "s", "scaling": scaling})
    assert [problem.path for problem in caught.value.problems] == [path]


def test_an_elastic_number_survives_the_file_and_the_row(make_study):
    study = make_study(scaling={"workers": {"min": 1, "max": 2}, "parallel": "fsdp2", "placement": "SPREAD"})
    assert parse_study(json.loads(json.dumps(study.to_dict()))) == study
    (trial,) = make_plan(study).trials
    scaling = trial.settings.scaling
    assert (scaling.min_workers, scaling.workers, scaling.elastic, scaling.distributed) == (1, 2, True, True)
    row = settings_columns(trial, 0)
    assert (row["workers_min"], row["workers"], row["parallel"]) == (1, 2, "fsdp2")
    assert trial_id(_settings(row, None)) == trial.trial_id
    shown = Study.json_schema()["$defs"]["ScalingSettings"]["properties"]["workers"]
    assert {kind["type"] for kind in shown["anyOf"]} == {"integer", "object"}


def test_identity_knows_what_changes_a_result_and_nothing_else(make_study):
    def identity(**sections):
        (trial,) = make_plan(make_study(**sections)).trials
        return trial.trial_id

    plain = identity(scaling={"workers": 2})
    same = (
        {"placement": "SPREAD"},
        {"alone": True},
        {"workers": {"min": 2, "max": 2}},
        {"executor": "train"},
    )
    assert {identity(scaling={"workers": 2, **scaling}) for scaling in same} == {plain}
    other = ({"parallel": "fsdp2"}, {"workers": {"min": 1, "max": 2}})
    assert len({identity(scaling={"workers": 2, **scaling}) for scaling in other} | {plain}) == 3
    assert identity() != identity(probe={"cost": False})
    (trial,) = make_plan(make_study()).trials
    assert not {"parallel", "cost", "alone", "placement"} & json.loads(canonical_json(trial.settings)).keys()


def test_a_trial_after_accuracy_alone_may_share_a_gpu_and_its_row_has_no_costs(make_trial):
    from study.train.trial import train_trial

    trial = make_trial(
        scaling={"gpus_per_worker": 0.5},
        probe={"cost": False, "enabled": False},
        train={"epochs": 1},
    )
    row = train_trial(trial, device="cpu").trial
    assert (row["outcome"], row["gpus_per_worker"]) == ("ok", 0.5)
    assert row["accuracy_test"] is not None
    for name in ("memory_peak_bytes", "memory_source", "step_time_s", "examples_per_s", "train_s"):
        assert row[name] is None


def test_room_for_trials():
    cluster, machine = Cluster(cpus=8, gpus=0), Machine(cpus=8)
    for scaling, room in (
        (ScalingSettings(), 8),
        (ScalingSettings(alone=True), 1),
        (ScalingSettings(workers=3), 2),
        (ScalingSettings(workers=4, min_workers=1), 2),
        (ScalingSettings(workers=16, min_workers=2), 1),
    ):
        assert concurrency(scaling, cluster) == machine.at_once(scaling) == room
    assert machine.at_once(ScalingSettings(workers=16, min_workers=9)) == 0
    with pytest.raises(ClusterError, match="needs 9 CPUs"):
        concurrency(ScalingSettings(workers=16, min_workers=9), cluster)


def test_a_sharded_network_is_estimated_to_need_its_share(make_study):
    from study.plan.cost import trial_cost

    whole, sharded = (
        trial_cost(make_plan(make_study(scaling={"workers": 2, "parallel": parallel})).trials[0].settings)
        for parallel in ("ddp", "fsdp2")
    )
    assert sharded.activation_bytes == whole.activation_bytes
    rest = whole.memory_bytes - whole.activation_bytes
    assert sharded.memory_bytes == whole.activation_bytes + rest // 2
