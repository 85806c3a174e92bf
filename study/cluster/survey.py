"""A look at every machine of a cluster before a study goes there: what each has, and what is amiss.

Versions and the shared store are asked for as before a run (`study.cluster.nodes`). Beside them: cores,
memory, GPUs, how far each clock is from this machine's, and how fast each machine gets an object from the one
before it in the list.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from study.cluster.nodes import answers_of, problems_of
from study.plan.machine import Machine
from study.settings.run import ScalingSettings

CLOCK_S = 2.0
"""Clocks may differ by so much. Times in rows and the order of attempts are read across machines."""
PARCEL_BYTES = 32 * 2**20
"""What is sent from one machine to the next to see how fast that is."""
TASK_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of a cluster.

    Attributes:
        name: Its address, its own name, and the start of Ray's id.
        cpus: That Ray schedules there; `gpus` likewise.
        cores: That the machine has; None where it did not answer, and of `memory_bytes` likewise.
        gpu_names: Of all its GPUs, and `gpu_memory_bytes` of each, as the driver tells them.
        clock_s: How far its clock is ahead of this machine's, and how exactly that is known; None if unknown.
        bytes_per_s: At which it gets an object from the machine before it; None with a single machine.
        problems: What keeps it from running trials, with remedies.
    """

    name: str
    cpus: float = 0
    gpus: float = 0
    cores: int | None = None
    memory_bytes: int | None = None
    gpu_names: tuple[str, ...] = ()
    gpu_memory_bytes: tuple[int, ...] = ()
    clock_s: float | None = None
    clock_error_s: float | None = None
    bytes_per_s: float | None = None
    versions: str = ""
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        return asdict(self)


def survey(store: str, *, measured: bool = True) -> list[Node]:
    """Return what every machine has of the Ray that this process has joined.

    Args:
        store: The store that they are to share.
        measured: Whether clocks and bandwidths are measured too.

    Raises:
        StoreError: The store cannot be written here.
    """
    import ray

    resources = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    answers = answers_of(store, facts=True)
    able = [answer["id"] for answer in answers.values() if "facts" in answer]
    clocks = {node_id: _clock(node_id) for node_id in able} if measured else {}
    speeds = _speeds(able) if measured and len(able) > 1 else {}
    found = []
    for name, answer in answers.items():
        node_id, told = answer.get("id", ""), answer.get("facts", {})
        offers, names = resources.get(node_id, {}), told.get("gpus", ())
        clock = clocks.get(node_id)
        problems = [str(problem) for problem in problems_of(name, answer, store)]
        problems += _clock_problems(name, clock)
        if 0 < len(names) < offers.get("GPU", 0):
            problems.append(
                f"{name}: Ray offers {offers['GPU']:g} GPUs, and the driver names {len(names)}; look at "
                "nvidia-smi there"
            )
        found.append(
            Node(
                name=name,
                cpus=offers.get("CPU", 0),
                gpus=offers.get("GPU", 0),
                cores=told.get("cores"),
                memory_bytes=told.get("memory_bytes"),
                gpu_names=tuple(gpu for gpu, _ in names),
                gpu_memory_bytes=tuple(size for _, size in names),
                clock_s=None if clock is None else clock[0],
                clock_error_s=None if clock is None else clock[1],
                bytes_per_s=speeds.get(node_id),
                versions=", ".join(f"{what} {which}" for what, which in answer.get("versions", {}).items()),
                problems=tuple(problems),
            )
        )
    return found


def as_machine(nodes: Sequence[Node]) -> Machine:
    """Return what the machines that can run trials offer together; of GPUs, the memory of the smallest."""
    fit = [node for node in nodes if not node.problems]
    memories = [node.memory_bytes for node in fit if node.memory_bytes is not None]
    return Machine(
        cpus=int(sum(node.cpus for node in fit)),
        gpus=int(sum(node.gpus for node in fit)),
        memory_bytes=sum(memories) if fit and len(memories) == len(fit) else None,
        gpu_memory_bytes=min((size for node in fit for size in node.gpu_memory_bytes), default=None),
    )


def lacking(nodes: Sequence[Node], scaling: ScalingSettings, worker_bytes: int | None) -> str:
    """Return why a trial cannot run on a cluster: no machine has room for one of its workers, or all
    together have too few places.

    Args:
        nodes: The machines.
        scaling: Workers of the trial and what each takes.
        worker_bytes: Predicted memory of one worker; None if unknown.

    Returns:
        The reason with a remedy; empty where the trial can run.
    """
    fit = [node for node in nodes if not node.problems]
    wanted = f"{scaling.cpus_per_worker:g} CPUs and {scaling.gpus_per_worker:g} GPUs"
    places = sum(_places(node, scaling) for node in fit)
    least = scaling.min_workers or scaling.workers
    if places < least:
        return (
            f"{least} workers of {wanted} each are asked for, and there is room for {places} on "
            f"{len(fit)} machines; lower scaling.workers, or what a worker takes, or add machines"
        )
    sizes = _rooms(fit, scaling)
    if worker_bytes is None or not sizes or sum(size >= worker_bytes for size in sizes) >= least:
        return ""
    what = "GPU" if scaling.gpus_per_worker else "machine"
    return (
        f"a worker is predicted to take {worker_bytes / 1e9:,.3g} GB, and the largest {what} has "
        f"{max(sizes) / 1e9:,.3g} GB; choose a memory strategy that stores less, or a smaller batch"
    )


def _places(node: Node, scaling: ScalingSettings) -> int:
    """How many workers of a trial a machine has room for."""
    cpus = node.cpus / scaling.cpus_per_worker + 1e-9
    if not scaling.gpus_per_worker:
        return int(cpus)
    return int(min(cpus, node.gpus / scaling.gpus_per_worker + 1e-9))


def _rooms(nodes: Sequence[Node], scaling: ScalingSettings) -> list[int]:
    """The memory that each place for a worker could have to itself; nothing where it is unknown."""
    if scaling.gpus_per_worker:
        share = min(1.0, scaling.gpus_per_worker)
        return [size for node in nodes for size in node.gpu_memory_bytes for _ in range(int(1 / share))]
    return [node.memory_bytes for node in nodes if node.memory_bytes for _ in range(_places(node, scaling))]


def _clock_problems(name: str, clock: tuple[float, float] | None) -> list[str]:
    if clock is None or abs(clock[0]) - clock[1] <= CLOCK_S:
        return []
    way = "ahead of" if clock[0] > 0 else "behind"
    return [
        f"{name}: its clock is {abs(clock[0]):.1f} s {way} this machine's, and may be {CLOCK_S:g} s off; "
        "let all machines keep time by NTP"
    ]


def _on(node_id: str, function: Any) -> Any:
    """The function as a task of one machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    affinity = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=affinity)


def _clock(node_id: str) -> tuple[float, float] | None:
    """How far a machine's clock is ahead of this one's, and how exactly that is known."""
    import ray

    best = None
    for _ in range(3):  # the first one starts a process
        before = time.time()
        try:
            there = ray.get(_on(node_id, _now).remote(), timeout=TASK_S)
        except Exception:  # of Ray: the machine went away meanwhile
            return None
        after = time.time()
        error = (after - before) / 2
        if best is None or error < best[1]:
            best = (there - (before + after) / 2, error)
    return best


def _speeds(node_ids: Sequence[str]) -> dict[str, float]:
    """Bytes a second at which each machine gets an object that lies on the one before it."""
    import ray

    found = {}
    for sender, receiver in zip([node_ids[-1], *node_ids], node_ids, strict=False):
        parcel = _on(sender, _parcel).remote(PARCEL_BYTES)
        try:
            ray.wait([parcel], timeout=TASK_S, fetch_local=False)
            seconds = ray.get(_on(receiver, _fetched).remote([parcel]), timeout=TASK_S)
        except Exception:  # of Ray: a machine went away meanwhile
            continue
        found[receiver] = PARCEL_BYTES / seconds
    return found


def _now() -> float:
    return time.time()


def _parcel(count: int) -> bytes:
    return bytes(count)


def _fetched(parcel: Sequence[Any]) -> float:
    """How long it takes to get an object here."""
    import ray

    began = time.perf_counter()
    ray.get(parcel[0])
    return time.perf_counter() - began
