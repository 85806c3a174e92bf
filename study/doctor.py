"""Is this machine ready for a study? Each check is a line with what was found and, if need be, the remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import Any

from study.ray_internals import installed, untested

PACKAGES = (
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "pyarrow",
    "duckdb",
    "plotly",
    "pydantic",
    "scikit-learn",
)
MIN_DISK_BYTES = 2 * 10**9
MIN_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing a study needs. `remedy` is empty where nothing has to be done."""

    name: str
    ok: bool
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def run_checks(store: str) -> list[Check]:
    """Every check of this machine, and of the store a study would write to. Nothing is left behind."""
    return [
        *_versions(),
        _ray_version(),
        _ray(),
        _torch(),
        _devices(),
        _threads(),
        _memory(),
        _disk(store),
        _store(store),
    ]


def _versions() -> Iterator[Check]:
    python = platform.python_version()
    yield Check(
        name="python",
        ok=sys.version_info >= (3, 11),
        found=f"{python} on {platform.platform(terse=True)}",
        remedy="" if sys.version_info >= (3, 11) else "install Python 3.11 or newer",
    )
    for package in PACKAGES:
        try:
            yield Check(name=package, ok=True, found=metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check(name=package, ok=False, found="missing", remedy="pip install revstudy")


def _attempt(name: str, action: Callable[[], str], remedy: str) -> Check:
    """Run `action`, whose text is what was found; whatever it raises is the finding instead."""
    try:
        return Check(name=name, ok=True, found=action())
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return Check(name=name, ok=False, found=f"{type(error).__name__}: {lines[0]}", remedy=remedy)


def _ray_version() -> Check:
    warning = untested()
    found = warning.partition(";")[0] or f"a version that was tested: {installed()}"
    return Check(name="ray version", ok=not warning, found=found, remedy=warning.partition("; ")[2])


def _ray() -> Check:
    def dashboard() -> str:
        # Ray Train asks the dashboard's state service when it cleans up, and that service needs aiohttp.
        return f"aiohttp {metadata.version('aiohttp')}: trials on several workers can run"

    return _attempt("ray dashboard", dashboard, 'pip install "ray[default,train,tune]"')


def _torch() -> Check:
    def one_step() -> str:
        import torch
        from torch import nn

        from revmodels import ReversibleBlock, ReversibleSequence

        def residual() -> nn.Module:
            return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

        # PyTorch imports its compiler, which takes seconds, for its optimizers and for what is checkpointed:
        # so the step is written out, and the network is none of the presets.
        with torch.random.fork_rng(devices=()):
            model = ReversibleSequence([ReversibleBlock(residual(), residual()) for _ in range(2)])
            images = torch.rand(2, 8, 8, 8)
        loss = model(images).square().mean()
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(0.1 * gradient)
            after = model(images).square().mean()
        if not (isfinite(after) and after < loss):
            raise ArithmeticError(f"a step along the gradient took the loss from {loss:.4g} to {after:.4g}")
        return "a reversible network trained one step"

    return _attempt("revmodels", one_step, "reinstall torch and revstudy")


def _devices() -> Check:
    def devices() -> str:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names) if names else "no GPU; trials run on the CPU"

    return _attempt("gpu", devices, "check the driver and the CUDA build of torch")


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check(name="cores", ok=True, found=f"{cores}; a trial takes scaling.cpus_per_worker of them")


def _memory() -> Check:
    def memory() -> str:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        if available < MIN_MEMORY_BYTES:
            raise MemoryError(f"{available / 1e9:.1f} GB free, a study needs {MIN_MEMORY_BYTES / 1e9:.0f} GB")
        return f"{available / 1e9:.1f} GB free"

    if not Path("/proc/meminfo").is_file():
        return Check(name="memory", ok=True, found="unknown on this system")
    return _attempt("memory", memory, "close other programs")


def _disk(store: str) -> Check:
    def disk() -> str:
        free = shutil.disk_usage(_existing(Path(store))).free
        if free < MIN_DISK_BYTES:
            raise OSError(f"{free / 1e9:.1f} GB free, a study needs {MIN_DISK_BYTES / 1e9:.0f} GB")
        return f"{free / 1e9:.1f} GB free"

    return _attempt("disk", disk, "free some space, or choose another --store")


def _store(store: str) -> Check:
    def writable() -> str:
        folder = _existing(Path(store))
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file")
        with tempfile.TemporaryFile(dir=folder):
            pass
        return f"{store} can be written" if Path(store).is_dir() else f"{store} can be created"

    return _attempt("store", writable, "choose another --store, or change its permissions")


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())
