"""The metrics of a split that is not trained on."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist

from study.tasks.task import Split, evenly
from study.train.session import Session, summed


@torch.no_grad()
def evaluate(session: Session, split: Split, *, most: int | None = None) -> dict[str, float]:
    """The task's metrics of a split in evaluation mode, by name, in the precision of training.

    Args:
        session: What is trained.
        split: What it is evaluated on.
        most: Examples at most, spread evenly over the split; without it, all.

    Returns:
        The value of each metric, over all workers.
    """
    task, model, place = session.task, session.model, session.place
    if place.world_size > 1:
        # Running statistics differ between workers until the next step; rank 0's are the model's.
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
    model.eval()
    index_N = evenly(len(split), most)
    own_N, size = index_N[place.rank :: place.world_size], session.examples.evaluation_batch
    shares = [part for part in own_N.split(size) if len(part)]
    totals: torch.Tensor | None = None
    for batch in session.examples.evaluation(split, shares):
        sums = task.sums(model(*batch.inputs), batch)
        totals = sums if totals is None else totals + sums
    # Rank 0 has the most batches; of a sharded network, every worker has to take part in each.
    rounds = math.ceil(math.ceil(len(index_N) / place.world_size) / size)
    for _ in range(rounds - len(shares) if session.sharded or totals is None else 0):
        batch = split.batch(index_N[:1])
        sums = task.sums(model(*batch.inputs), batch)
        totals = torch.zeros_like(sums) if totals is None else totals
    model.train()
    assert totals is not None
    return task.values(summed(session, totals))
