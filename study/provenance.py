"""Where and with what a trial ran: device, machine, versions, commit. No part of a trial's identity."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("analysis", "revmodels", "study")
SHIPPED = "REVSTUDY_SHIPPED"
"""Environment variable with the commit and version that code sent to a cluster had where it came from."""


def provenance(device: str | None = None) -> dict[str, Any]:
    """Return the provenance columns of `analysis.schema.TRIALS`, without the two times.

    Args:
        device: ``cpu`` or ``cuda``, as torch names it; None for a row written by a process that trained
            nothing.
    """
    commit, dirty = _git()
    return {
        "device": None if device is None else _device_name(device),
        "hostname_hash": hashlib.sha256(platform.node().encode()).hexdigest()[:12],
        "cpu_threads": None if device is None else _threads(),
        "git_commit": commit,
        "git_dirty": dirty,
        "revstudy_version": _version("revstudy"),
        "torch_version": _version("torch"),
        # Without Ray in the process the trial ran without Ray, installed or not.
        "ray_version": _version("ray") if "ray" in sys.modules else None,
        "python_version": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _version(package: str) -> str | None:
    shipped = _shipped()
    if package == "revstudy" and shipped:
        return str(shipped["revstudy_version"])
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(package), "__version__", None)
        return None if version is None else str(version)


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return _processor()


@lru_cache(maxsize=1)
def code_digest() -> str:
    """12 hexadecimal digits of a hash of the Python sources that this process runs trials with."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str | None]:
    """What has to be the same on every machine of a cluster, for equal settings to give equal results."""
    release = _version("torch")
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "ray": _version("ray"),
        # A build for CUDA and one for the CPU are one release.
        "torch": None if release is None else release.partition("+")[0],
        "revstudy": code_digest(),
    }


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({os.cpu_count()} cores)"


@lru_cache(maxsize=1)
def _git() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package lies in, and whether it holds uncommitted changes."""
    shipped = _shipped()
    if shipped:
        return shipped["git_commit"], shipped["git_dirty"]
    folder = Path(__file__).resolve().parent
    # An installed package may lie inside an unrelated checkout: only one that tracks this file counts.
    if _run(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    status = _run(folder, "status", "--porcelain", "--untracked-files=no")
    return _run(folder, "rev-parse", "HEAD"), None if status is None else bool(status)


def shipped_as() -> dict[str, str]:
    """The environment variable to send along with this code, so that rows name the commit it is of."""
    commit, dirty = _git()
    values = {"git_commit": commit, "git_dirty": dirty, "revstudy_version": _version("revstudy")}
    return {SHIPPED: json.dumps(values)}


def _shipped() -> dict[str, Any]:
    """What came along with this code, if it was sent here."""
    found = json.loads(os.environ.get(SHIPPED) or "{}")
    return found if isinstance(found, dict) else {}


def _run(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
