"""A trial small enough to train in about a second, and deep enough to rebuild activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from study.identity import resolve, trial_id
from study.settings.data import DataSettings
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.train import TrainSettings
from study.settings.trial import Trial, TrialSettings


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in another order round differently: equality of bits needs a fixed number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_trial() -> Callable[..., Trial]:
    """A trial on 256 digits, each keyword a setting of one section."""

    def make(**changes) -> Trial:
        sections = {
            "data": DataSettings(train_examples=256, test_examples=100),
            "model": ModelSettings(name="revnet38", width=0.25, depth=26),
            "precision": PrecisionSettings(),
            "memory": MemorySettings(),
            "train": TrainSettings(epochs=2, batch_size=64),
        }
        settings = TrialSettings(**sections)
        for section, values in changes.items():
            value = replace(getattr(settings, section), **values) if isinstance(values, dict) else values
            settings = replace(settings, **{section: value})
        settings = resolve(settings)
        return Trial(trial_id=trial_id(settings), study="test", settings=settings)

    return make
