"""What each of two processes runs for `test_distributed`: every case once, its figures returned by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from revmodels import ReversibleBlock, ReversibleSequence, create_model
from revmodels.errors import ReplayError
from tests.revmodels.blocks import CHANNELS, KINDS

RANKS, BATCH, BLOCKS = 2, 4, 4
TINY_MB = 1e-4
"""Bucket size that gives nearly every parameter a bucket of its own."""


class Network(nn.Module):
    """A sequence between two linear layers; the second head is used only on demand."""

    def __init__(self, kind: str, strategy: str) -> None:
        super().__init__()
        blocks = [ReversibleBlock(KINDS[kind](), KINDS[kind](), split_dim=1) for _ in range(BLOCKS)]
        self.stem = nn.Conv2d(3, 2 * CHANNELS, 1) if kind == "conv_basic" else nn.Linear(3, 2 * CHANNELS)
        self.body = ReversibleSequence(blocks, strategy)
        self.head, self.other_head = nn.Linear(2 * CHANNELS, 2), nn.Linear(2 * CHANNELS, 2)

    def forward(self, x: Tensor, both: bool = True) -> Tensor:
        h = self.body(self.stem(x))
        h = h.mean((2, 3)) if h.dim() == 4 else h
        return self.head(h) + self.other_head(h) if both else self.head(h)


def network(kind: str = "mlp", strategy: str = "reverse") -> Network:
    torch.manual_seed(0)
    return Network(kind, strategy).double()


def joined_batch(kind: str = "mlp", step: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    shape = (RANKS * BATCH, 3, 4, 4) if kind == "conv_basic" else (RANKS * BATCH, 3)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def part(x: Tensor, rank: int) -> Tensor:
    return x[rank * BATCH : (rank + 1) * BATCH]


def loss(out: Tensor) -> Tensor:
    return out.square().mean()


def worst_error(found: nn.Module, exact: nn.Module) -> float:
    """Largest relative error over the parameters; infinite where one alone has a gradient."""
    worst = 0.0
    for p, q in zip(found.parameters(), exact.parameters(), strict=True):
        if (p.grad is None) != (q.grad is None):
            return float("inf")
        if p.grad is not None and q.grad is not None:
            g = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
            worst = max(worst, ((g - q.grad).norm() / q.grad.norm()).item())
    return worst


def ddp(rank: int, *, both: bool = True, steps: int = 3, **flags: bool) -> float:
    """Gradients summed over several steps against one process with the joined batch."""
    model, single = network(), network(strategy="store")
    parallel = DistributedDataParallel(model, **flags)
    for step in range(steps):
        x = joined_batch(step=step)
        loss(parallel(part(x, rank), both)).backward()
        loss(single(x, both)).backward()
    for p in model.parameters():  # With find_unused_parameters, an unused one gets zeros.
        if p.grad is not None and not p.grad.any():
            p.grad = None
    return worst_error(model, single)


def ddp_no_sync(rank: int) -> float:
    """Two backward passes without communication, then one with it."""
    model, single = network(), network(strategy="store")
    parallel = DistributedDataParallel(model)
    for step in range(3):
        x = joined_batch(step=step)
        if step < 2:
            with parallel.no_sync():
                loss(parallel(part(x, rank))).backward()
        else:
            loss(parallel(part(x, rank))).backward()
        loss(single(x)).backward()
    return worst_error(model, single)


def ddp_batch_norm(rank: int) -> dict[str, float]:
    """With statistics per process, the right gradient is the mean of those of the parts, one by one."""
    x = joined_batch("conv_basic")
    model, parts = network("conv_basic"), [network("conv_basic", "store") for _ in range(RANKS)]
    parallel = DistributedDataParallel(model)
    loss(parallel(part(x, rank))).backward()
    for r, twin in enumerate(parts):
        loss(twin(part(x, r))).backward()
    for p, *others in zip(*(twin.parameters() for twin in parts), strict=True):
        p.grad = torch.stack([p.grad, *(q.grad for q in others)]).mean(0)
    buffers = zip(model.buffers(), parts[rank].buffers(), strict=True)
    return {
        "gradients": worst_error(model, parts[0]),
        "statistics": max((a.double() - b.double()).abs().max().item() for a, b in buffers),
        "counted": max(b.item() for name, b in model.named_buffers() if "num_batches" in name),
    }


def sync_batch_norm(rank: int) -> str:
    """The message with which PyTorch refuses synchronized batch norm on a CPU."""
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network("conv_basic"))
    try:
        model(part(joined_batch("conv_basic"), rank))
    except ValueError as refusal:
        return str(refusal)
    return ""


def overlap(rank: int) -> list[tuple[str, int]]:
    """The order in which blocks are rebuilt and buckets handed to communication, in a second step."""
    events: list[tuple[str, int]] = []
    model = network()
    parallel = DistributedDataParallel(model, bucket_cap_mb=TINY_MB)

    def communicate(_, bucket):
        events.append(("bucket", bucket.index()))
        work = dist.all_reduce(bucket.buffer().div_(RANKS), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    parallel.register_comm_hook(None, communicate)
    loss(parallel(part(joined_batch(), rank))).backward()  # Buckets get their final order in the first step.
    out = loss(parallel(part(joined_batch(), rank)))
    events.clear()
    for i, block in enumerate(model.body.units()):
        block.g.register_forward_pre_hook(lambda *_, i=i: events.append(("rebuild", i)))
    out.backward()
    return events


def fsdp(rank: int, *, per_block: bool, strategy: str = "reverse", **options: bool) -> float:
    """Sharded parameters, in two steps with an optimizer between them."""
    mesh = init_device_mesh("cpu", (RANKS,))
    model, single = network(strategy=strategy), network(strategy="store")
    if per_block:
        for block in model.body.units():
            fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    worst = 0.0
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (model, single)]
    for step in range(2):
        x = joined_batch(step=step)
        loss(model(part(x, rank))).backward()
        loss(single(x)).backward()
        worst = max(worst, worst_error(model, single))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return worst


def language(rank: int, name: str, parallel: str) -> float:
    """A language model and its loss, whose embedding is its output layer, in two steps."""
    model, single = (_language_model(name, strategy) for strategy in (None, "store"))
    wrapped: nn.Module = model
    if parallel == "ddp":
        wrapped = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (RANKS,))
        for unit in getattr(model.body, "blocks", model.body):
            fully_shard(unit, mesh=mesh)
        fully_shard(model, mesh=mesh)
    worst = 0.0
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (model, single)]
    for step in range(2):
        rows = torch.randint(64, (RANKS * BATCH, 13), generator=torch.Generator().manual_seed(step))
        wrapped(part(rows[:, :-1], rank), part(rows[:, 1:], rank)).mean.backward()
        single(rows[:, :-1], rows[:, 1:]).mean.backward()
        worst = max(worst, worst_error(model, single))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return worst


class Decoder(nn.Module):
    """A sequence whose units all read what an encoder in front of them returns."""

    def __init__(self, strategy: str) -> None:
        super().__init__()
        blocks = [ReversibleBlock(Reads(), Reads(), split_dim=1) for _ in range(BLOCKS)]
        self.encoder, self.stem = nn.Linear(3, 5), nn.Linear(3, 2 * CHANNELS)
        self.body = ReversibleSequence(blocks, strategy)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x), self.encoder(x), scale=0.5)


class Reads(nn.Module):
    """A residual function with a context and an option."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.read = nn.Linear(CHANNELS, CHANNELS), nn.Linear(5, CHANNELS)

    def forward(self, x: Tensor, memory: Tensor, *, scale: float) -> Tensor:
        return torch.tanh(self.linear(x) + scale * self.read(memory))


def decoder(strategy: str) -> Decoder:
    torch.manual_seed(0)
    return Decoder(strategy).double()


def context(rank: int, strategy: str, how: str) -> float:
    """Gradients of a context's encoder, of two steps with an optimizer between them."""
    model, single = decoder(strategy), decoder("store")
    if how == "ddp":
        parallel: nn.Module = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (RANKS,))
        if how == "fsdp blocks":
            for block in model.body.units():
                fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        parallel = model
    worst = 0.0
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (model, single)]
    for step in range(2):
        x = joined_batch(step=step)
        loss(parallel(part(x, rank))).backward()
        loss(single(x)).backward()
        worst = max(worst, worst_error(model, single))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return worst


def _language_model(name: str, strategy: str | None) -> Any:
    torch.manual_seed(0)
    return create_model(name, depth=2, vocab_size=64, tied=True, strategy=strategy).double()


def fsdp_inside_a_block(rank: int) -> str:
    """The message with which the engine refuses F sharded by itself."""
    model = network()
    fully_shard(model.body.blocks[0].f, mesh=init_device_mesh("cpu", (RANKS,)))
    fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))
    try:
        model(part(joined_batch(), rank))
    except ReplayError as refusal:
        return str(refusal)
    return ""


CASES: dict[str, Callable[[int], object]] = {
    "ddp": ddp,
    "ddp static_graph": lambda rank: ddp(rank, static_graph=True),
    "ddp find_unused_parameters": lambda rank: ddp(rank, find_unused_parameters=True, both=False),
    "ddp gradient_as_bucket_view": lambda rank: ddp(rank, gradient_as_bucket_view=True),
    "ddp no_sync": ddp_no_sync,
    "ddp batch norm": ddp_batch_norm,
    "sync batch norm": sync_batch_norm,
    "overlap": overlap,
    "fsdp": lambda rank: fsdp(rank, per_block=False),
    "fsdp reshard": lambda rank: fsdp(rank, per_block=False, reshard_after_forward=True),
    "fsdp blocks": lambda rank: fsdp(rank, per_block=True),
    "fsdp blocks reshard": lambda rank: fsdp(rank, per_block=True, reshard_after_forward=True),
    "fsdp blocks kept": lambda rank: fsdp(rank, per_block=True, reshard_after_forward=False),
    "fsdp blocks stored": lambda rank: fsdp(rank, per_block=True, strategy="store"),
    "ddp revgpt": lambda rank: language(rank, "revgpt_100k", "ddp"),
    "ddp gpt": lambda rank: language(rank, "gpt_100k", "ddp"),
    "fsdp revgpt": lambda rank: language(rank, "revgpt_100k", "fsdp"),
    "fsdp gpt": lambda rank: language(rank, "gpt_100k", "fsdp"),
    "fsdp inside a block": fsdp_inside_a_block,
    "context ddp": lambda rank: context(rank, "reverse", "ddp"),
    "context ddp checkpoint": lambda rank: context(rank, "checkpoint", "ddp"),
    "context fsdp": lambda rank: context(rank, "reverse", "fsdp"),
    "context fsdp blocks": lambda rank: context(rank, "reverse", "fsdp blocks"),
    "context fsdp blocks stored": lambda rank: context(rank, "store", "fsdp blocks"),
}


def main(rank: int, folder: str) -> None:
    """Run every case in step with the other process and save what they return."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    torch.save({name: case(rank) for name, case in CASES.items()}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
