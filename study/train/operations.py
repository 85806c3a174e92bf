"""Floating-point operations of a training step, and how much of what a device can do they are."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from torch import nn

from revmodels import measure
from study.settings.model import MemorySettings, PrecisionSettings
from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings
from study.tasks.registry import task_of
from study.tasks.task import Shape, Task
from study.train.build import network_settings, outline

PEAKS = {
    # NVIDIA's data sheets, dense: half precision, TF32, float32, float64, in 10^12 operations a second.
    "H100 PCIe": (756, 378, 51, 51),
    "H100": (989, 494, 67, 67),
    "H200": (989, 494, 67, 67),
    "A100": (312, 156, 19.5, 19.5),
    "L40S": (362, 183, 91.6, None),
    "V100": (125, None, 15.7, 7.8),
}
"""What devices can do at most. The first name that a device's name holds counts."""


def step_operations(settings: TrialSettings, examples: int) -> tuple[int, int | None]:
    """Return the operations of a step of so many examples, over all workers.

    They are counted on fake tensors, once for equal networks.

    Args:
        settings: Of the trial.
        examples: Of a step.

    Returns:
        The model's, with nothing computed twice; and those that its memory strategy really makes, None where
        a compiler decides.

    Raises:
        StudyError: The network cannot be built.
    """
    task, train = task_of(settings), settings.train
    parts = settings.scaling.workers * train.accumulate
    part, shape = max(1, examples // parts), task.shape(settings)
    # Number formats change no count, but an exact coupling evaluates what an additive one leaves out.
    precision = PrecisionSettings(coupling=settings.precision.coupling)
    real = network_settings(
        replace(settings, precision=precision), train=TrainSettings(channels_last=train.channels_last)
    )
    # What a strategy repeats is told apart by a twin that stores.
    once = replace(real, memory=MemorySettings(strategy="store"), precision=PrecisionSettings())
    model, hardware = _once(once, task, shape, part), _really(real, task, shape, part)
    scale = examples / part
    return round(model * scale), None if hardware is None else round(hardware * scale)


@lru_cache(maxsize=1024)
def _once(settings: TrialSettings, task: Task, shape: Shape, count: int) -> int:
    network, batch = outline(settings, task, shape, count)
    return measure.model_flops(network, batch.inputs)


@lru_cache(maxsize=1024)
def _really(settings: TrialSettings, task: Task, shape: Shape, count: int) -> int | None:
    network, batch = outline(settings, task, shape, count)
    return measure.hardware_flops(network, batch.inputs)


def peak_operations(device: str | None, settings: TrialSettings) -> float | None:
    """Return what a device can do in the arithmetic of a trial, in operations a second; None if not known.

    >>> peak_operations("NVIDIA H100 80GB HBM3", TrialSettings())
    67000000000000.0
    """
    found = next((peaks for name, peaks in PEAKS.items() if device and name in device), None)
    if found is None:
        return None
    half, tf32, single, double = found
    compute = settings.precision.compute
    if compute == "fp32":
        peak = tf32 if settings.precision.matmul == "tf32" else single
    else:
        peak = double if compute == "fp64" else half
    return None if peak is None else peak * 1e12


def non_embedding(model: nn.Module) -> int | None:
    """Return the trainable parameters of a network without its embeddings and without its last layer, if that
    has an output for each of their rows; None where there is no embedding.
    """
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    if not tables:
        return None
    ids = {id(m.weight) for m in tables}
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if layers and layers[-1].out_features in {m.num_embeddings for m in tables}:
        ids.add(id(layers[-1].weight))
    return sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in ids)
