"""What is known of a trial so far, and the state from which a later process goes on with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from study.settings.trial import Trial
from study.train.session import Session, StepTimes


@dataclass(kw_only=True)
class TrialProgress:
    """What is known of a trial so far; it outlives the exception that ends it."""

    trial: Trial
    attempt: int
    columns: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    clock: StepTimes = field(default_factory=StepTimes)
    wall_before_s: float = 0.0

    @property
    def losses(self) -> list[float]:
        """The validation loss of each evaluation."""
        return [row["loss_val"] for row in self.epochs]

    @property
    def key(self) -> dict[str, Any]:
        """The columns that all three tables share."""
        return {"trial_id": self.trial.trial_id, "study": self.trial.study, "attempt": self.attempt}


def state_of(session: Session, progress: TrialProgress, evaluation: int, wall_s: float) -> dict[str, Any]:
    """All that a resumed trial needs after an evaluation: tensors and plain values alone."""
    cuda = torch.cuda.get_rng_state(session.device) if session.device.type == "cuda" else None
    return {
        "trial_id": progress.trial.trial_id,
        "epoch": evaluation,
        **_weights(session),
        "scaler": session.scaler.state_dict(),
        "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        "columns": dict(progress.columns),
        "epochs": list(progress.epochs),
        "blocks": list(progress.blocks),
        "step_times_s": list(progress.clock.step_times_s),
        "wall_s": progress.wall_before_s + wall_s,
    }


def _weights(session: Session) -> dict[str, Any]:
    """The states of network and optimizer; those of a sharded network on rank 0 alone."""
    if session.sharded:
        from study.train.sharding import whole_state

        return whole_state(session.model, session.optimizer)
    return {"model": session.model.state_dict(), "optimizer": session.optimizer.state_dict()}


def restore(session: Session, progress: TrialProgress, state: dict[str, Any]) -> None:
    """Take over a saved state."""
    if state["trial_id"] != progress.trial.trial_id:
        raise ValueError(
            f"a state fits its own trial, {state['trial_id']}; received for {progress.trial.trial_id}"
        )
    if session.sharded:
        from study.train.sharding import load_whole_state

        load_whole_state(session.model, session.optimizer, state)
    else:
        session.model.load_state_dict(state["model"])
        session.optimizer.load_state_dict(state["optimizer"])
    session.scaler.load_state_dict(state["scaler"])
    if session.place.world_size == 1:  # the saved stream is one worker's; the others keep their own seeds
        torch.set_rng_state(state["rng"]["cpu"].cpu())
        if state["rng"]["cuda"] is not None and session.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng"]["cuda"].cpu(), session.device)
    progress.columns.update(state["columns"])
    progress.epochs += [{**row, **progress.key} for row in state["epochs"]]
    progress.blocks += [{**row, **progress.key} for row in state["blocks"]]
    progress.clock.step_times_s += state["step_times_s"]
    progress.wall_before_s = state["wall_s"]
