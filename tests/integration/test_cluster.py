"""Two machines, as far as Ray knows: a trial across both, and one of them is lost in the middle of it."""

from __future__ import annotations

import time

import pyarrow.parquet as pq
import pytest

from study.record import read_rows
from tests.cli.conftest import finish, start

EPOCHS = 12


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes with one CPU each, which this process does not join."""
    from ray.cluster_utils import Cluster

    from study.executors.session import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster, cluster.add_node(num_cpus=1)
    finally:
        cluster.shutdown()


@pytest.mark.timeout(420)
def test_a_trial_across_two_nodes_outlives_one_of_them(two_nodes, tmp_path, store):
    cluster, second = two_nodes
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: wide\n"
        "data: {name: digits, train_examples: 256, test_examples: 100}\n"
        "model: {width: 0.25, depth: 14}\n"
        f"train: {{epochs: {EPOCHS}, batch_size: 64}}\n"
        "scaling: {workers: 2}\n"
    )
    process = start("run", study, "--store", store, "--address", cluster.address)
    try:
        deadline = time.monotonic() + 180
        while not list(store.glob("checkpoints/*.pt")):
            assert process.poll() is None, finish(process)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        answer = finish(process, timeout=200)
    finally:
        process.kill()
    assert answer.code == 0, answer.err
    (row,) = read_rows(store).values()
    assert (row["outcome"], row["attempt"], row["workers"], row["epochs_done"]) == ("ok", 1, 2, EPOCHS)
    lost, _ = sorted(store.glob("study=wide/trials/*.parquet"))
    (lost_row,) = pq.read_table(lost).to_pylist()
    assert lost_row["outcome"] == "failed"
    epochs = pq.read_table(next(store.glob("study=wide/epochs/*-a1.parquet")))["epoch"].to_pylist()
    assert epochs == list(range(1, EPOCHS + 1))
    assert not list(store.glob("checkpoints/*")) + list(store.glob("claims/*"))
