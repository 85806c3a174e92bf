"""What exact coupling costs against additive coupling: step time and activation memory, side by side.

Both networks live in one process and take turns, step by step, so that whatever else the machine does falls
on both; the figure is the median of the ratios of neighboring steps, with a bootstrap interval. On a CPU with
one thread the clock is that of the process, which stands still while others have the processor. The memory is
that of one training step, from `revmodels.measure`; and, for the streams alone, the bytes that the forward
pass of the reversible units leaves behind.

    python benchmarks/precision_cost.py --depth 38 --compute bf16
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from revmodels import Precision, create_model
from revmodels.measure import peak_memory


def build(arguments: argparse.Namespace, coupling: str) -> nn.Module:
    """A network of equal weights for either coupling."""
    torch.manual_seed(0)
    precision = Precision(compute=arguments.compute, stream=arguments.stream, coupling=coupling)
    model = create_model(
        arguments.model, num_classes=10, depth=arguments.depth, width=arguments.width, precision=precision
    )
    return model.to(arguments.device, memory_format=torch.channels_last)


def step_time_s(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[torch.Tensor, torch.Tensor]
) -> float:
    """Seconds of one training step, to the end of the device's work."""
    alone = not batch[0].is_cuda and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    began = clock()
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()
    if batch[0].is_cuda:
        torch.cuda.synchronize()
    return clock() - began


def kept_bytes(model: nn.Module, images: torch.Tensor) -> int:
    """Bytes that the units save for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage()._cdata] = t.untyped_storage().nbytes()
        return t

    stream = model.start(images).detach().requires_grad_(True)  # type: ignore[operator]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model.transform(stream)  # type: ignore[operator]
    size = sum(kept.values())
    out.sum().backward()
    return size


def main() -> None:
    """Measure and print; nothing is written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="revnet38")
    parser.add_argument("--depth", type=int, default=38)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--compute", default="fp32")
    parser.add_argument("--stream", default="fp32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    shape = (arguments.batch, 3, arguments.size, arguments.size)
    dtype = torch.float64 if arguments.compute == "fp64" else torch.float32
    images = torch.randn(shape, dtype=dtype, device=arguments.device).to(memory_format=torch.channels_last)
    batch = images, torch.randint(10, (arguments.batch,), device=arguments.device)
    models = {coupling: build(arguments, coupling) for coupling in ("additive", "exact")}
    optimizers = {name: torch.optim.SGD(m.parameters(), 0.01, momentum=0.9) for name, m in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for i in range(arguments.steps + 2):
        order = list(models) if i % 2 else list(reversed(models))
        for name in order:
            times[name].append(step_time_s(models[name], optimizers[name], batch))
    ratios = np.array(times["exact"][2:]) / np.array(times["additive"][2:])
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    step, kept = {}, {}
    for name, model in models.items():
        step[name] = peak_memory(model, batch, optimizers[name]).activation_bytes
        kept[name] = kept_bytes(model, images)
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine()
    print(f"{vars(arguments)}\n{machine}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in models:
        median = statistics.median(times[name][2:])
        print(
            f"{name:>8}: {1000 * median:.1f} ms a step, {step[name]:,} activation bytes at the peak, "
            f"{kept[name]:,} kept by the units"
        )
    print(
        f"exact / additive: time {np.median(ratios):.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"n = {len(ratios)} pairs), activations {step['exact'] / step['additive']:.3f}, "
        f"kept {kept['exact'] / kept['additive']:.3f}"
    )


if __name__ == "__main__":
    main()
