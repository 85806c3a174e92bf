"""What a trial trains with, made from its settings: data, network, optimizer and place among the workers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from study.code import use
from study.identity import resolve, strategy_of
from study.tasks.registry import task_of
from study.train.build import build_model
from study.train.measurements import predicted_growth
from study.train.operations import non_embedding
from study.train.optim import make_optimizer
from study.train.progress import TrialProgress
from study.train.session import Distributed, Session


def open_session(
    progress: TrialProgress, place: Distributed, device: torch.device, deadline: float | None
) -> Session:
    """Read the data and build the network on the trial's seed.

    Args:
        progress: What is known of the trial; the columns of its data and its network are added.
        place: This process among the workers.
        device: Where the training happens.
        deadline: Seconds since the Unix epoch after which it ends.

    Returns:
        The session, ready for its first step.
    """
    use(progress.trial.settings.code)
    settings = resolve(progress.trial.settings)
    task = task_of(settings)
    examples = task.open(settings, device)
    progress.columns.update(examples_train=len(examples.train), **examples.columns)
    torch.manual_seed(settings.seed)
    model = task.adapted(build_model(settings, examples.shape))
    progress.columns["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    progress.columns["coupling_growth_predicted"] = predicted_growth(settings, model)
    progress.columns["parameters_non_embedding"] = non_embedding(model)
    layout = torch.channels_last if settings.train.channels_last else torch.contiguous_format
    sharded = settings.scaling.parallel == "fsdp2" and torch.distributed.is_initialized()
    if sharded:
        layout = torch.contiguous_format  # the only one that FSDP2 takes
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if sharded:
        from study.train.sharding import shard

        shard(model, device)
    session = Session(
        settings=settings,
        task=task,
        examples=examples,
        model=model,
        network=strategy_of(settings).prepare(model),
        optimizer=make_optimizer(model, settings.train),
        scaler=torch.amp.GradScaler(device.type, enabled=settings.precision.compute == "fp16"),
        device=device,
        place=place,
        deadline=deadline,
        clock=progress.clock,
    )
    if place.world_size > 1:
        # Weights are equal by the seed; only what is random in the forward pass must differ.
        torch.manual_seed(settings.seed * place.world_size + place.rank)
        if not session.sharded:
            session.network = nn.parallel.DistributedDataParallel(model)
    return session


def gathered(session: Session) -> Session:
    """The session with the whole network on rank 0: what one worker does alone cannot gather shards."""
    from study.train.sharding import whole_weights

    weights = whole_weights(session.model)
    if session.place.rank != 0:
        return session
    with torch.random.fork_rng(devices=[]):
        model = session.task.adapted(build_model(session.settings, session.examples.shape))
    model.load_state_dict(weights)
    return replace(session, model=model.to(session.device))
