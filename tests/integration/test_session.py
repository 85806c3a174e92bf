"""Clusters that do not answer or are too small: one clear line each."""

from __future__ import annotations

import socket

import pytest

from study.cluster.session import Cluster, ClusterError, ray_session


@pytest.fixture
def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "pass --address auto"),
        ("127.0.0.1", "is not host:port"),
        ("127.0.0.1:port", "is not host:port"),
        ("127.0.0.1:99999999", "no Ray cluster answers"),
    ],
)
def test_bad_addresses_name_the_remedy(address, message):
    with pytest.raises(ClusterError, match=message) as raised, ray_session(address):
        pass
    assert repr(address) in str(raised.value)
    assert raised.value.exit_code == 4


def test_nobody_listening_is_told_in_seconds(closed_port):
    with pytest.raises(ClusterError, match="leave --address out"), ray_session(f"127.0.0.1:{closed_port}"):
        pass


def test_slots_count_whole_trials():
    cluster = Cluster(cpus=8, gpus=2)
    assert cluster.slots(cpus=1, gpus=0) == 8
    assert cluster.slots(cpus=3, gpus=0) == 2
    assert cluster.slots(cpus=1, gpus=1) == 2
    assert cluster.slots(cpus=0.5, gpus=0.25) == 8
    with pytest.raises(ClusterError, match="needs 16 CPUs and 0 GPUs, Ray offers 8 CPUs and 2 GPUs"):
        cluster.slots(cpus=16, gpus=0)


def test_a_session_joins_the_ray_of_its_process(ray_cluster):
    import ray

    with ray_session() as cluster:
        assert (cluster.cpus, cluster.gpus) == (2, ray_cluster.gpus)
    assert ray.is_initialized()


def test_a_trial_too_large_for_the_cluster_stops_the_run_before_any_trial(ray_cluster, make_study, store):
    from study.run import plan_run, run_study

    with pytest.raises(ClusterError, match=r"scaling\.cpus_per_worker"):
        run_study(make_study(scaling={"cpus_per_worker": 64}), store)
    assert not list(store.glob("study=*/trials/*"))
    both = plan_run(make_study(space={"scaling.cpus_per_worker": {"grid": [1, 64]}}), store)
    assert (len(both.trials), len(both.duplicates)) == (1, 1)  # resources are no part of a trial's identity
