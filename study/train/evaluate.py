"""Loss and accuracy of a split that is not trained on."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F

from study.data.load import Split
from study.train.batches import batch
from study.train.session import Session, summed

EVALUATION_BATCH = 512


@torch.no_grad()
def evaluate(session: Session, split: Split) -> tuple[float, float]:
    """(cross-entropy, accuracy) of a split in evaluation mode, in the precision of training."""
    model, place = session.model, session.place
    if place.world_size > 1:
        # Running statistics differ between workers until the next step; rank 0's are the model's.
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64)
    shares = list(torch.arange(place.rank, len(split), place.world_size).split(EVALUATION_BATCH))
    for index in shares:
        inputs, targets = batch(session, split, index)
        logits = model(inputs)
        loss = F.cross_entropy(logits, targets, reduction="sum").item()
        correct = int((logits.argmax(1) == targets).sum())
        totals += torch.tensor([loss, correct, len(targets)], dtype=torch.float64)
    # Rank 0 has the most batches; of a sharded network, every worker has to take part in each.
    most = math.ceil(math.ceil(len(split) / place.world_size) / EVALUATION_BATCH)
    for _ in range(most - sum(len(index) > 0 for index in shares) if session.sharded else 0):
        model(batch(session, split, torch.arange(1))[0])
    model.train()
    loss_sum, correct_sum, examples = summed(session, totals).tolist()
    return loss_sum / examples, correct_sum / examples
