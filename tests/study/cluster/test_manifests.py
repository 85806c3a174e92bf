"""Clusters sized from a plan, and the files that make them, against Ray's own schema and KubeRay's fields."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest
import yaml

from study.cluster.manifests import cluster_file, kuberay_job, requirements
from study.cluster.sizing import NODE_BYTES, PROCESS_BYTES, Place, Sizing, size_of
from study.errors import StudyError
from study.plan.expand import make_plan
from study.spec.load import parse_study


@pytest.fixture
def sized(make_study):
    """A study of the given sections, and the nodes for it; each worker is predicted to take 0.5 GB."""

    def sized(sections: dict[str, Any], **limits: Any) -> Sizing:
        study = make_study(**sections)
        plan = make_plan(study)
        trials = tuple(replace(trial, memory_predicted_bytes=500_000_000) for trial in plan.trials)
        return size_of(replace(plan, trials=trials), study, **limits)

    return sized


def test_few_trials_ask_for_no_more_than_they_fill(sized):
    size = sized({"seeds": [0, 1, 2]})
    assert (size.nodes, size.cpus, size.gpus, size.workers, size.trials) == (1, 8, 0, 3, 3)
    assert size.memory_bytes == NODE_BYTES + 3 * (PROCESS_BYTES + 500_000_000)


def test_many_trials_fill_as_many_nodes_as_are_allowed(sized):
    assert sized({"seeds": list(range(100))}).nodes == 4
    assert sized({"seeds": list(range(100))}, max_nodes=20).nodes == 13
    assert sized({"seeds": list(range(100))}, max_nodes=20, cpus=32).nodes == 4


def test_workers_with_gpus_need_them_on_nodes_and_their_tensors_are_not_in_the_node_s_memory(sized):
    scaling = {"workers": 4, "gpus_per_worker": 1, "cpus_per_worker": 2}
    size = sized({"scaling": scaling, "train": {"batch_size": 64}})
    assert (size.nodes, size.gpus, size.workers) == (4, 1, 4)
    assert size.memory_bytes == NODE_BYTES + PROCESS_BYTES
    assert sized({"scaling": scaling, "train": {"batch_size": 64}}, gpus=4).nodes == 1


def test_a_fraction_of_a_gpu_shares_one(sized):
    size = sized({"scaling": {"gpus_per_worker": 0.25}, "probe": {"cost": False}, "seeds": list(range(8))})
    assert (size.nodes, size.gpus, size.workers) == (2, 1, 8)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_nodes": 1, "gpus": 1}, ["--max-nodes", "needs 4 nodes", "--max-nodes 4"]),
        ({"gpus": 0}, ["a worker needs 2 CPUs and 1 GPUs"]),
        ({"cpus": 1}, ["a worker needs 2 CPUs and 1 GPUs"]),
        ({"memory_gb": 1}, ["--memory-per-node-gb", "predicted to take 3.5 GB"]),
    ],
)
def test_nodes_that_are_too_few_or_too_small_are_refused(sized, limits, words):
    scaling = {"workers": 4, "gpus_per_worker": 1, "cpus_per_worker": 2}
    with pytest.raises(StudyError) as raised:
        sized({"scaling": scaling, "train": {"batch_size": 64}}, **limits)
    for word in words:
        assert word in str(raised.value)


def test_a_search_is_sized_by_its_large_end(make_study):
    study = make_study(
        space={"model.width": {"uniform": [0.25, 0.5]}, "memory.strategy": {"choice": ["reverse", "store"]}},
        search={"method": "optuna", "trials": 2},
    )
    from study.plan.cost import trial_cost
    from study.plan.points import apply_point

    largest = trial_cost(apply_point(study, {"model.width": 0.5, "memory.strategy": "store"})).memory_bytes
    assert size_of(make_plan(study), study).memory_bytes == NODE_BYTES + 2 * (PROCESS_BYTES + largest)


def test_a_study_that_is_done_still_gives_a_cluster(make_study):
    study = make_study()
    done = {trial.trial_id for trial in make_plan(study).trials}
    assert size_of(make_plan(study, done=done), study).nodes == 1


SIZE = Sizing(nodes=3, cpus=8, gpus=1, memory_bytes=20 * 2**30 - 5, workers=3, trials=9)


def rayjob(study: Any, store: str, place: Place | None = None) -> dict[str, Any]:
    return yaml.safe_load(kuberay_job(study, store, SIZE, place or Place()))


FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "entrypoint",
        "runtimeEnvYAML",
        "submissionMode",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    },
    "spec.rayClusterSpec": {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "spec.rayClusterSpec.headGroupSpec": {"rayStartParams", "template"},
    "spec.rayClusterSpec.workerGroupSpecs": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    },
}
"""Documented fields of ray.io/v1: https://docs.ray.io/en/master/cluster/kubernetes/references/api.html"""


def test_a_rayjob_has_the_documented_fields(make_study):
    job = rayjob(make_study(name="My_Study.v2"), "/mnt/results")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for path, fields in FIELDS.items():
        part: Any = job
        for key in filter(None, path.split(".")):
            part = part[key]
        part = part[0] if isinstance(part, list) else part
        assert part.keys() <= fields, path
    assert job["metadata"]["name"].startswith("revstudy-my-study-v2-")
    assert len(job["metadata"]["name"]) <= 47
    spec = job["spec"]["rayClusterSpec"]
    assert spec["rayVersion"] == metadata.version("ray")
    assert spec["authOptions"] == {"mode": "token"}
    (workers,) = spec["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 3
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "20Gi", "nvidia.com/gpu": "1"}
    # Start parameters are text to KubeRay, and no trial runs on the head.
    assert all(
        isinstance(v, str) for g in (spec["headGroupSpec"], workers) for v in g["rayStartParams"].values()
    )
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert isinstance(yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"], dict)


def test_the_study_and_the_store_are_mounted_where_the_driver_looks(make_study):
    study = make_study()
    job = rayjob(study, "/mnt/results", Place(claim="my-claim"))
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    annotation = head["metadata"]["annotations"]["revstudy/study"]
    assert parse_study(json.loads(annotation)) == study
    volumes = {volume["name"]: volume for volume in head["spec"]["volumes"]}
    assert volumes["store"]["persistentVolumeClaim"] == {"claimName": "my-claim"}
    (item,) = volumes["study"]["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['revstudy/study']"
    mounts = {m["name"]: m["mountPath"] for m in head["spec"]["containers"][0]["volumeMounts"]}
    command = job["spec"]["entrypoint"].split()
    assert command[:4] == ["python", "-m", "study.cli", "run"]
    assert command[4:] == [f"{mounts['study']}/{item['path']}", "--store", mounts["store"]]


def test_object_storage_needs_no_volume_and_a_relative_store_is_below_mnt(make_study):
    job = rayjob(make_study(), "s3://bucket/results")
    assert job["spec"]["entrypoint"].endswith("--store s3://bucket/results")
    assert "persistentVolumeClaim" not in json.dumps(job)
    assert rayjob(make_study(), "results")["spec"]["entrypoint"].endswith("--store /mnt/results")


def test_a_token_is_referred_to_and_never_written(make_study, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "very-secret-token")
    job = rayjob(make_study(), "/s", Place(token_secret="my-secret", image="me/rev:1", namespace="lab"))
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "my-secret"}
    assert job["metadata"]["namespace"] == "lab"
    assert "me/rev:1" in json.dumps(job)
    file = cluster_file(make_study(), "/s", SIZE, Place())
    assert "very-secret" not in json.dumps(job) + file


def test_a_study_too_large_for_an_annotation_is_refused(make_study):
    with pytest.raises(StudyError, match="revstudy submit --address"):
        rayjob(make_study(seeds=list(range(60_000))), "/s")


@pytest.mark.parametrize("image", [None, "me/rev:1"])
def test_a_cluster_file_is_what_ray_s_schema_asks_for(make_study, image):
    from ray.autoscaler._private.util import prepare_config, validate_config

    file = yaml.safe_load(cluster_file(make_study(), "s3://b/results", SIZE, Place(image=image)))
    validate_config(prepare_config(deepcopy(file)))  # as `ray up` does
    worker = file["available_node_types"]["worker"]
    assert (worker["min_workers"], worker["max_workers"], file["max_workers"]) == (3, 3, 3)
    assert worker["resources"] == {"CPU": 8, "GPU": 1}
    assert file["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert bool(file["setup_commands"]) == (image is None)
    assert "--dashboard-host=127.0.0.1" in file["head_start_ray_commands"][0]
    commands = file["head_start_ray_commands"] + file["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in commands)
    assert file["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


def test_the_schema_check_can_fail(make_study):
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    file = yaml.safe_load(cluster_file(make_study(), "/s", SIZE, Place()))
    with pytest.raises(ValidationError):
        validate_config({**file, "max_workers": "three"})
    with pytest.raises(ValidationError):
        validate_config({**file, "workers": 3})


def test_instance_types_hold_the_nodes(make_study):
    def instance(**size: Any) -> str:
        file = yaml.safe_load(cluster_file(make_study(), "/s", replace(SIZE, **size), Place()))
        return file["available_node_types"]["worker"]["node_config"]["InstanceType"]

    assert instance() == "g5.2xlarge"
    assert instance(gpus=4) == "g5.12xlarge"
    assert instance(gpus=0) == "m6i.2xlarge"
    assert instance(gpus=0, memory_bytes=60 * 2**30) == "m6i.4xlarge"
    assert instance(gpus=0, memory_bytes=200 * 2**30) == "r6i.8xlarge"
    with pytest.raises(StudyError, match="--instance-type"):
        instance(gpus=16)
    named = cluster_file(make_study(), "/s", replace(SIZE, gpus=16), Place(instance_type="x2.huge"))
    assert "x2.huge" in named


def test_requirements_are_the_installed_versions():
    found = requirements()
    assert f"torch=={metadata.version('torch').partition('+')[0]}" in found
    assert f"ray[default,train,tune]=={metadata.version('ray')}" in found
    assert not [line for line in found if line.startswith(("pytest", "kaleido"))]
