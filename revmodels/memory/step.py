"""Peak memory of one training step: measured on real tensors, or predicted on fake ones.

On CUDA the figure is the allocator's. On the CPU, which has no such statistics, every storage that an
operation returns is followed from its creation to its release, at the level of PyTorch's dispatcher. What a
kernel allocates and frees inside itself is not seen. The same tracker runs on fake tensors, which have sizes
but no memory, and gives the same bytes.

A compiled model runs past the dispatcher. On the CPU its figure comes from the profiler, which is told of
every allocation and release, inside kernels too. For models that are not compiled the two agree within 1 % in
what is held between the passes, and within 10 % in the peak.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from revmodels.coupling.context import Context, Given, as_context, mapped, tensors_in
from revmodels.memory.preserved_state import random_state_kept, training_kept
from revmodels.memory.tracker import Tracker
from revmodels.torch_internals import FakeTensorMode, drop_hooks, is_compiled, storage_key

Batch = tuple[Tensor | tuple[Any, ...], Any]
"""What a model is called with, a tensor or a tuple of arguments, and the targets of the loss."""

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Memory of one training step, in bytes.

    Attributes:
        total_bytes: peak of everything together.
        activation_bytes: peak of activations and temporaries, whenever in forward and backward it occurs.
        saved_bytes: activations held at the end of the forward pass; None where they were not tracked.
        parameter_bytes: parameters.
        gradient_bytes: gradients at the end of the backward pass.
        optimizer_bytes: optimizer state after the step.
        buffer_bytes: buffers, such as running statistics.
        input_bytes: the batch.
        offloaded_bytes: peak of activations that were moved to host memory; on a CPU they are part of the
            total. None where they were not tracked.
        side_bytes: of the saved activations, what exact couplings keep to be inverted bit for bit.
        source: ``tracker``, ``cpu_allocator`` (compiled models on a CPU) or ``cuda_allocator``.
    """

    total_bytes: int
    activation_bytes: int
    saved_bytes: int | None
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    buffer_bytes: int
    input_bytes: int
    source: str
    offloaded_bytes: int | None = 0
    side_bytes: int = 0

    @property
    def temporary_bytes(self) -> int | None:
        """What the backward pass needs beyond the activations saved for it."""
        return None if self.saved_bytes is None else self.activation_bytes - self.saved_bytes


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a model is called with in a step, and the targets of the loss."""

    context: Context
    target: Any

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor in it, those of the targets last."""
        return [*self.context.tensors, *tensors_in(self.target)]

    def loss(self, model: nn.Module, loss: Loss) -> Tensor:
        """One forward pass of the model and of the loss, to a scalar."""
        return loss(model(*self.context.args, **self.context.options), self.target)


def call_of(batch: Batch, context: Given = ()) -> Call:
    """A batch, with what the model is called with besides, as one call.

    Args:
        batch: (inputs, targets).
        context: what stands behind the inputs, by position or by name.

    Returns:
        The call.
    """
    behind = as_context(context)
    return Call(context=Context((*inputs_of(batch), *behind.args), behind.options), target=batch[1])


def peak_memory(
    model: nn.Module,
    batch: Batch,
    optimizer: Optimizer | OptimizerFactory | None = None,
    *,
    loss: Loss = F.cross_entropy,
    context: Given = (),
) -> MemoryUse:
    """Measure one training step (forward, backward, optimizer step), and leave model and optimizer untouched.

    Args:
        model: on any device, in training mode if training is what you want to know about.
        batch: (inputs, targets) on the model's device; inputs are a tensor, or a tuple of several.
        optimizer: an optimizer of the model's parameters, or a function that makes one from them; None is SGD
            with momentum, one number of state per parameter.
        loss: maps (outputs, targets) to a scalar.
        context: what the model is called with behind the inputs: a sequence of values by position, or a
            mapping by name. It counts as input.

    Returns:
        The step's memory; from the allocator on CUDA, from the tracker elsewhere. A compiled model is
        compiled before anything is measured.
    """
    if not isinstance(optimizer, Optimizer):
        optimizer = (optimizer or _momentum)(model.parameters())
    compiled = any(is_compiled(m) for m in model.modules())
    call = call_of(batch, context)
    first = call.tensors[0]
    measure = _allocator_step if first.is_cuda else _profiled_step if compiled else _tracked_step
    with random_state_kept(first.device), training_kept(model, optimizer):
        if compiled:
            call.loss(model, loss).backward()
            model.zero_grad()
        return measure(model, call, optimizer, loss)


def predict_memory(
    model: nn.Module | Callable[[], nn.Module],
    batch: Batch,
    optimizer: OptimizerFactory | None = None,
    *,
    loss: Loss = F.cross_entropy,
    context: Given = (),
) -> MemoryUse:
    """Return what `peak_memory` would measure on a CPU, computed on fake tensors: no memory is allocated for
    them. Of an LSTM layer a forward pass is run, as `revmodels.memory.recurrent` says.

    Args:
        model: a module, or a function that builds one, which is called under the ``meta`` device.
        batch: (inputs, targets), as for `peak_memory`; only shapes, layouts and dtypes count, so they may be
            on the ``meta`` device.
        optimizer: makes the optimizer from the parameters; None is SGD with momentum.
        loss: maps (outputs, targets) to a scalar.
        context: as for `peak_memory`.

    Example:
        >>> import revmodels
        >>> images = torch.empty(128, 3, 32, 32, device="meta")
        >>> batch = images, torch.empty(128, dtype=torch.long, device="meta")
        >>> predict_memory(lambda: revmodels.create_model("revnet110", num_classes=10), batch).parameter_bytes
        6916776
    """
    fake = FakeTensorMode()
    with random_state_kept(torch.device("cpu")):
        if not isinstance(model, nn.Module):
            with torch.device("meta"):
                model = model()
        with fake:
            model = shaped_copy(model, "cpu")
            call = _fake(call_of(batch, context))
            return _tracked_step(model, call, (optimizer or _momentum)(model.parameters()), loss)


def inputs_of(batch: Batch) -> tuple[Any, ...]:
    """What a model is called with for this batch: one tensor of any shape and dtype, or several arguments."""
    return (batch[0],) if isinstance(batch[0], Tensor) else tuple(batch[0])


def _fake(call: Call) -> Call:
    """A call without content. Parts that share memory, as a text and the same moved by one, do so again."""
    memory = Counter(storage_key(x) for x in call.tensors)
    shared: dict[tuple[int, torch.dtype], Tensor] = {}

    def fake(x: Tensor) -> Tensor:
        if memory[storage_key(x)] == 1 or x.requires_grad:
            return described(x)
        key = storage_key(x), x.dtype
        if key not in shared:
            shared[key] = torch.empty(x.untyped_storage().nbytes() // x.itemsize, dtype=x.dtype, device="cpu")
        return shared[key].as_strided(x.size(), x.stride(), x.storage_offset())

    return Call(context=call.context.mapped(fake), target=mapped(call.target, fake))


def described(x: Tensor, device: str = "cpu") -> Tensor:
    """A tensor without content: of the shape, layout and dtype of `x`, and with a gradient if it has one."""
    empty = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=device)
    return empty.requires_grad_(x.requires_grad)


def _momentum(parameters: Iterable[nn.Parameter]) -> Optimizer:
    # An optimizer wants a parameter, and a network may have none.
    return torch.optim.SGD(list(parameters) or [nn.Parameter(torch.empty(0))], lr=0.1, momentum=0.9)


def shaped_copy(model: nn.Module, device: str) -> nn.Module:
    """Return a copy whose parameters and buffers are empty, on `device`, with the layout of the originals.

    Hooks stay behind, but for those with which PyTorch computes weights: nobody who watches the network is
    told of tensors without numbers.
    """

    def empty(t: Tensor) -> Tensor:
        return torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=device)

    memo: dict[int, object] = {}
    for p in model.parameters():
        memo[id(p)] = nn.Parameter(empty(p), requires_grad=p.requires_grad)
    for b in model.buffers():
        memo[id(b)] = empty(b)
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        drop_hooks(module)
    return copied


def _tracked_step(model: nn.Module, call: Call, optimizer: Optimizer, loss: Loss) -> MemoryUse:
    tracker = Tracker()
    for p in model.parameters():
        tracker.follow(p, "parameter")
    for b in model.buffers():
        tracker.follow(b, "buffer")
    for t in call.tensors:
        tracker.follow(t, "input")
    for t in _state_tensors(optimizer):
        tracker.follow(t, "optimizer")

    def on_gradient(p: Tensor) -> None:
        if p.grad is not None:
            tracker.follow(p.grad, "gradient")

    with _gradient_hooks(model, on_gradient), tracker:
        value = call.loss(model, loss)
        saved = tracker.held.get("activation", 0)
        value.backward()
        del value
        gradient = tracker.held.get("gradient", 0)
        # From here on nothing new is an activation: the step makes state, and temporaries of its own.
        tracker.category = "optimizer"
        optimizer.step()
    return MemoryUse(
        total_bytes=tracker.peak,
        activation_bytes=tracker.peak_activation,
        saved_bytes=saved,
        parameter_bytes=tracker.held.get("parameter", 0),
        gradient_bytes=gradient,
        optimizer_bytes=_size(_state_tensors(optimizer)),
        buffer_bytes=tracker.held.get("buffer", 0),
        input_bytes=tracker.held.get("input", 0),
        source="tracker",
        offloaded_bytes=tracker.peak_offloaded,
        side_bytes=_side_bytes(model),
    )


def _profiled_step(model: nn.Module, call: Call, optimizer: Optimizer, loss: Loss) -> MemoryUse:
    own_before = _size((*model.parameters(), *model.buffers(), *call.tensors, *_state_tensors(optimizer)))
    with _watched() as forward:
        value = call.loss(model, loss)
    with _watched() as backward:
        value.backward()
        del value
    gradients = _size(p.grad for p in model.parameters() if p.grad is not None)
    with _watched() as step:
        optimizer.step()
    peaks, left = zip(*(_peak_and_rest(part) for part in (forward, backward, step)), strict=True)
    of_passes = max(peaks[0], left[0] + peaks[1])
    return MemoryUse(
        total_bytes=own_before + max(of_passes, left[0] + left[1] + peaks[2]),
        activation_bytes=max(of_passes - gradients, left[0]),  # no gradient is there between the passes
        saved_bytes=left[0],
        parameter_bytes=_size(model.parameters()),
        gradient_bytes=gradients,
        optimizer_bytes=_size(_state_tensors(optimizer)),
        buffer_bytes=_size(model.buffers()),
        input_bytes=_size(call.tensors),
        source="cpu_allocator",
        side_bytes=_side_bytes(model),
    )


def _watched() -> profile:
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True)


def _peak_and_rest(profiled: profile) -> tuple[int, int]:
    """The most bytes that were allocated at once since a profile began, and those left at its end."""
    events: Any = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    changes.sort(key=itemgetter(0))
    held = list(accumulate((size for _, size in changes), initial=0))
    return max(held), held[-1]


def _allocator_step(model: nn.Module, call: Call, optimizer: Optimizer, loss: Loss) -> MemoryUse:
    device = call.tensors[0].device
    parameters, buffers = _size(model.parameters()), _size(model.buffers())
    torch.cuda.synchronize(device)
    own_before = parameters + buffers + _size(call.tensors) + _size(_state_tensors(optimizer))
    others = torch.cuda.memory_allocated(device) - own_before
    torch.cuda.reset_peak_memory_stats(device)
    value = call.loss(model, loss)
    value.backward()
    del value
    torch.cuda.synchronize(device)
    peak_of_passes = torch.cuda.max_memory_allocated(device) - others
    gradients = _size(p.grad for p in model.parameters() if p.grad is not None)
    optimizer.step()
    torch.cuda.synchronize(device)
    return MemoryUse(
        total_bytes=torch.cuda.max_memory_allocated(device) - others,
        activation_bytes=peak_of_passes - own_before - gradients,
        saved_bytes=None,
        parameter_bytes=parameters,
        gradient_bytes=gradients,
        optimizer_bytes=_size(_state_tensors(optimizer)),
        buffer_bytes=buffers,
        input_bytes=_size(call.tensors),
        source="cuda_allocator",
        offloaded_bytes=None,
        side_bytes=_side_bytes(model),
    )


@contextmanager
def _gradient_hooks(model: nn.Module, hook: Callable[[Tensor], None]) -> Iterator[None]:
    handles = [p.register_post_accumulate_grad_hook(hook) for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _state_tensors(optimizer: Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                yield value


def _side_bytes(model: nn.Module) -> int:
    """What the sequences of a network kept in the last forward pass for their exact inverses."""
    return sum(getattr(module, "side_information_bytes", 0) for module in model.modules())


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)
