"""Can every machine of a cluster run trials? Each is asked before the first one starts.

A machine without this package, with other versions, or that does not share the store would fail trial after
trial, or worse, leave its rows where nobody looks. It is named instead, with what to do.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from study.cluster.reach import ClusterError
from study.errors import Problem, StoreError
from study.provenance import versions
from study.store.files import open_filesystem, remove_file, write_file

TIMEOUT_S = 90.0
"""A machine that has just joined starts a Python process first."""
SETTLE_S = 5.0
"""How long a file of another machine may take to be seen on a network file system."""


def check_nodes(store: str) -> None:
    """Make sure that every machine of the cluster has this code and the same versions, and shares the store.

    The driver writes a small file that every machine must find, and every machine one that the driver must
    find; all are removed again. Machines that join later are not asked.

    Raises:
        ClusterError: A machine has not the package, or other versions of it, or does not answer; all such are
            named.
        StoreError: All have it, and the store cannot be written, or is not the same folder, on those that are
            named.
    """
    judge(answers_of(store), store)


def answers_of(store: str, *, facts: bool = False) -> dict[str, dict[str, Any]]:
    """Ask every machine of the cluster for its versions, and whether it shares the store.

    Args:
        store: The store that they are to share. A file is written there by each, and removed again.
        facts: Whether each is also to tell what it has, see `study.cluster.facts`.

    Returns:
        By the name of the machine, what `problems_of` judges; with the ``id`` that Ray gives it.

    Raises:
        StoreError: The store cannot be written here.
    """
    mark = f".probe-{uuid.uuid4().hex[:12]}"
    write_file(store, mark, mark.encode())
    try:
        answers = _ask(store, mark, facts=facts)
        for answer in answers.values():
            if "wrote" in answer:
                answer["unseen"] = not _seen(store, answer["wrote"])
    finally:
        _tidy(store, mark)
    return answers


def problems_of(name: str, answer: Mapping[str, Any], store: str) -> list[Problem]:
    """Return what keeps a machine from running trials, by what it answered."""
    return [*_machine_problems(name, answer), *_store_problems(name, answer, store)]


def judge(answers: Mapping[str, Mapping[str, Any]], store: str) -> None:
    """Raise what `check_nodes` raises for the answers of machines, by name.

    Raises:
        ClusterError: As `check_nodes` says.
        StoreError: As `check_nodes` says.
    """
    cluster_problems = [p for name, answer in answers.items() for p in _machine_problems(name, answer)]
    store_problems = [p for name, answer in answers.items() for p in _store_problems(name, answer, store)]
    if cluster_problems:
        lines = [str(problem) for problem in (*cluster_problems, *store_problems)]
        head = "" if len(lines) == 1 else f"{len(lines)} problems on the machines of the cluster\n  "
        raise ClusterError(head + "\n  ".join(lines))
    if store_problems:
        raise StoreError(problems=store_problems)


def _ask(store: str, mark: str, *, facts: bool) -> dict[str, dict[str, Any]]:
    """What every machine answers, under its name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(_make_probe())
    nodes = {node["NodeID"]: _name(node) for node in ray.nodes() if node["Alive"]}
    asked = {
        probe.options(
            num_cpus=0,
            max_retries=1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(store, mark, node_id, facts): node_id
        for node_id in nodes
    }
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=TIMEOUT_S)
    answers: dict[str, dict[str, Any]] = {nodes[asked[task]]: {"late": True} for task in late}
    for task in ready:
        try:
            answers[nodes[asked[task]]] = {**ray.get(task), "id": asked[task]}
        except Exception as error:  # of Ray: the machine died, or could not start a process
            answers[nodes[asked[task]]] = {"error": str(error).strip().splitlines()[-1]}
    for task in late:
        ray.cancel(task, force=True)
    gone = {nodes[node["NodeID"]] for node in ray.nodes() if not node["Alive"] and node["NodeID"] in nodes}
    return {name: answer for name, answer in answers.items() if name not in gone}


def _name(node: dict[str, Any]) -> str:
    """A machine as people find it: address, its own name or its host's, and the start of Ray's id."""
    address, given = node["NodeManagerAddress"], node.get("NodeName")
    name = given if given and given != address else node.get("NodeManagerHostname")
    return f"node {address} ({name or 'unnamed'}, id {node['NodeID'][:8]})"


def _make_probe() -> Callable[..., dict[str, Any]]:
    """The function that a machine runs. Made here, Ray sends its code, which needs no package to load."""

    def probe(store: str, mark: str, node_id: str, facts: bool) -> dict[str, Any]:
        import platform

        answer: dict[str, Any] = {}
        try:
            from study.provenance import versions
            from study.store.files import open_filesystem, write_file

            answer["versions"] = versions()
            if facts:
                from study.cluster.facts import facts as told

                answer["facts"] = told()
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "python": platform.python_version()}
        try:
            filesystem, root = open_filesystem(store)
            if not filesystem.get_file_info(f"{root}/{mark}").is_file:
                return {**answer, "unseen": True}
            write_file(store, f"{mark}-{node_id}", mark.encode())
        except Exception as error:
            answer["store_error"] = getattr(error, "rule", "") or f"{type(error).__name__}: {error}"
        return {**answer, "wrote": f"{mark}-{node_id}"}

    return probe


def _machine_problems(name: str, answer: Mapping[str, Any]) -> Iterable[Problem]:
    if answer.get("late"):
        yield Problem(
            path=name,
            value=f"no answer in {TIMEOUT_S:.0f} s",
            rule="every machine must run a task",
            remedy="look at `ray status`, or remove the machine from the cluster",
        )
    elif "error" in answer:
        remedy = "install revstudy and what it depends on there, as on the head node"
        rule = "revstudy must be importable on every machine"
        yield Problem(path=name, value=answer["error"], rule=rule, remedy=remedy)
    else:
        here, there = versions(), answer["versions"]
        other = [
            f"{what} {there[what]} instead of {here[what]}" for what in here if here[what] != there[what]
        ]
        if other:
            yield Problem(
                path=name,
                value=", ".join(other),
                rule="every machine must have the driver's versions of python, ray, torch and this code",
                remedy="install the same everywhere, or equal settings would give other results",
            )


def _store_problems(name: str, answer: Mapping[str, Any], store: str) -> Iterable[Problem]:
    if "store_error" in answer:
        yield Problem(
            path=name,
            value=store,
            rule=answer["store_error"],
            remedy="make the store writable there for the user that Ray runs as",
        )
    elif answer.get("unseen"):
        yield Problem(
            path=name,
            value=store,
            rule="the store must be one and the same folder on every machine, and there it is not",
            remedy="mount the shared folder at that path there, or choose a --store that all machines reach",
        )


def _seen(store: str, name: str) -> bool:
    filesystem, root = open_filesystem(store)
    ends_at = time.monotonic() + SETTLE_S
    while not filesystem.get_file_info(f"{root}/{name}").is_file:
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.2)
    return True


def _tidy(store: str, mark: str) -> None:
    from pyarrow import fs

    filesystem, root = open_filesystem(store)
    for info in filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True)):
        if info.base_name.startswith(mark):
            remove_file(store, info.base_name)
