"""Every private name of PyTorch that this package uses: what each is for, and the public one that was tried.

No other file of `revmodels` names what PyTorch keeps private; a test reads the source for it. Another test
asks every name here what it promises, so that a new version of PyTorch that lacks one says so by its name.
The functions are for this package and may change with PyTorch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter


def _private(module: str, name: str, purpose: str) -> Any:
    """The private `name` of `module`, or an error that says what it was for."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"revmodels needs {module}.{name} {purpose}, and PyTorch {torch.__version__} has none. Use a "
            "version that is named in constraints.txt, or mend revmodels/torch_internals.py."
        ) from error
    return found


FakeTensor: Any = _private(
    "torch._subclasses.fake_tensor", "FakeTensor", "to know a tensor that has a shape and no numbers"
)
"""A tensor without numbers. Public: none; ``device="meta"`` has no device of its own, and this one has."""

FakeTensorMode: Any = _private(
    "torch._subclasses.fake_tensor", "FakeTensorMode", "to predict the memory of a step without its memory"
)
"""The mode in which tensors have no numbers. Public: none; under ``torch.device("meta")`` other kernels are
chosen than on a CPU, which keep other tensors."""

TorchDispatchMode: Any = _private(
    "torch.utils._python_dispatch", "TorchDispatchMode", "to see every operation of a step"
)
"""Sees every operation. Public: `torch.overrides.TorchFunctionMode`, which sees no backward pass."""

BatchNorm: Any = _private("torch.nn.modules.batchnorm", "_BatchNorm", "to know every layer of batch norm")
"""The base of all batch norms. Public: four classes by name, which misses those that people derive."""

run_with_rng_state: Any = _private(
    "torch._prims.rng_prims", "run_with_rng_state", "to draw the same numbers twice in a graph"
)
"""Runs one operation on a given state of a generator. Public: `torch.random.fork_rng`, which a compiler
cannot keep around what it moves."""

tree_leaves: Any = _private("torch.utils._pytree", "tree_leaves", "to find the tensors in what is returned")
"""All leaves of nested lists, tuples and dictionaries. Public: none."""

_disable_current_modes: Any = _private(
    "torch.utils._python_dispatch",
    "_disable_current_modes",
    "to hide bookkeeping from modes that count memory",
)
_dispatch_depth: Any = _private(
    "torch._C", "_len_torch_dispatch_stack", "to know that no mode has to be switched off"
)
_keeps_graph: Any = _private(
    "torch._C._autograd",
    "_get_current_graph_task_keep_graph",
    "to know whether a backward pass may be run again",
)
_has_any_global_hook: Any = _private(
    "torch.nn.modules.module", "_has_any_global_hook", "to know whether somebody watches every module"
)
_run_backward: Any = _private(
    "torch.autograd.graph", "_engine_run_backward", "to differentiate each F and G without checks in Python"
)


_transforms_active: Any = _private(
    "torch._C", "_are_functorch_transforms_active", "to refuse transforms of torch.func by name"
)

_graph_task: Any = _private(
    "torch._C", "_current_graph_task_id", "to know whether a sequence is run again in a backward pass"
)
_saved_tensors_hooks: Any = _private(
    "torch._C._autograd",
    "_top_saved_tensors_default_hooks",
    "to know whether a checkpoint may run a sequence again",
)

Dropout: Any = _private("torch.nn.modules.dropout", "_DropoutNd", "to know every layer of dropout")
"""The base of all dropouts. Public: their classes by name, which misses those that people derive."""


def without_dispatch_modes() -> AbstractContextManager:
    """Return a context in which no dispatch mode sees anything; where none is in force, one that does
    nothing.

    Public: none. A mode could be told to look away, but not a mode of somebody else's.
    """
    return _disable_current_modes() if _dispatch_depth() else nullcontext()


def graph_is_kept() -> bool:
    """Return whether a backward pass runs under ``retain_graph=True``.

    Public: none; `torch.autograd.graph` has no question about the running pass.
    """
    return _keeps_graph()


def has_global_hook() -> bool:
    """Return whether a hook is registered for every module.

    Public: none; `torch.nn.modules.module.register_module_forward_hook` and the like only add one.
    """
    return _has_any_global_hook()


def has_hooks(module: nn.Module) -> bool:
    """Return whether somebody has registered a forward or backward hook of any kind on `module`.

    Public: none; `nn.Module` has methods that add a hook, and none that asks.
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def has_gradient_hooks(t: Tensor) -> bool:
    """Return whether somebody has registered a hook on the gradient of `t`.

    Public: none; `Tensor.register_hook` and `Tensor.register_post_accumulate_grad_hook` only add one.
    """
    return bool(t._backward_hooks or getattr(t, "_post_accumulate_grad_hooks", None))


@contextmanager
def without_new_gradient_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """A context at whose end the tensors have no hook on their gradients that they had not at its start.

    Public: none; `Tensor.register_hook` returns the handle to its caller, who is the user here.
    """
    before = [set(t._backward_hooks or ()) for t in tensors]
    try:
        yield
    finally:
        for t, known in zip(tensors, before, strict=True):
            for key in [key for key in t._backward_hooks or () if key not in known]:
                del t._backward_hooks[key]  # type: ignore[union-attr]


def drop_hooks(module: nn.Module) -> None:
    """Take every hook off `module` but PyTorch's own, such as weight norm's, which compute a weight.

    Public: none but the handles, which whoever registered a hook has.

    Args:
        module: a copy that nobody else has; its children keep their hooks.
    """
    tables: tuple[Any, ...] = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    for table in tables:
        for key, hook in list(table.items()):
            if not type(hook).__module__.startswith("torch."):
                del table[key]


_global_hooks: tuple[Any, ...] = tuple(
    _private("torch.nn.modules.module", name, "to run a copy of a network that nobody watches")
    for name in (
        "_global_forward_hooks",
        "_global_forward_pre_hooks",
        "_global_backward_hooks",
        "_global_backward_pre_hooks",
    )
)


@contextmanager
def without_global_hooks() -> Iterator[None]:
    """A context in which hooks that are registered for every module do not run.

    Public: none, see `has_global_hook`.
    """
    kept = [dict(table) for table in _global_hooks]
    for table in _global_hooks:
        table.clear()
    try:
        yield
    finally:
        for table, own in zip(_global_hooks, kept, strict=True):
            table.update(own)


def count_forward_hooks(module: nn.Module) -> int:
    """How many forward hooks and forward pre-hooks `module` has. Public: none, see `has_hooks`."""
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return the table in which `module` holds its own parameters, None for those it lacks.

    Public: ``named_parameters(recurse=False)``, which takes four times as long and leaves out None and what
    occurs twice under two names. Every step asks this of every layer of every F and G.
    """
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The table in which `module` holds its buffers. Public: ``named_buffers(recurse=False)``, as above."""
    return module._buffers


def own_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """The table in which `module` holds its submodules. Public: ``named_children()``, as above."""
    return module._modules


def version(tensor: Tensor) -> int:
    """Return how often the numbers of `tensor` were written in place; 0 for one of inference mode.

    Public: none; autograd raises an error only for what it has saved itself.
    """
    return 0 if tensor.is_inference() else tensor._version


def storage_key(tensor: Tensor) -> int:
    """Return what is equal for two living tensors only if they share their memory.

    Public: ``untyped_storage().data_ptr()``, which is 0 for every fake tensor and every empty one.
    """
    return tensor.untyped_storage()._cdata


class MemoryMark:
    """Tells later whether a tensor lies in the same memory, which was written to since.

    Args:
        tensor: of any shape and dtype. It is not kept alive; its memory may be used again once it is gone.

    Public: none, see `version`. A weak reference keeps the key of the memory from being given to another.
    """

    __slots__ = ("_memory", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._memory, self._version = StorageWeakRef(tensor.untyped_storage()), version(tensor)

    def is_stale(self, tensor: Tensor) -> bool:
        """Whether `tensor` shares that memory and was written to; False for a copy."""
        return storage_key(tensor) == self._memory.cdata and version(tensor) != self._version


def marks(tensors: Iterable[Tensor]) -> list[tuple[int, int]]:
    """For each tensor what stays equal only if its numbers lie in the same memory and were not written to.

    Public: none, see `version` and `storage_key`. Every step asks this of every F and G twice.

    Returns:
        Pairs that can be compared.
    """
    return [
        (0 if t.is_inference() else t._version, t.untyped_storage()._cdata)
        if type(t) is nn.Parameter or type(t) is Tensor
        # Without a shape, a tensor has no numbers.
        else (0 if isinstance(t, UninitializedParameter | UninitializedBuffer) else version(t), 0)
        for t in tensors
    ]


def node_number(node: Any) -> int:
    """Return the place of a node of the autograd graph among all that its thread has made; leaves come last.

    Public: none; it tells what a call has added to the graph from what was there before.
    """
    return node._sequence_nr()


def are_transforms_active() -> bool:
    """Return whether a transform of `torch.func` is running. Public: none."""
    return _transforms_active()


def is_in_backward_pass() -> bool:
    """Return whether this thread is differentiating a graph. Public: none."""
    return _graph_task() != -1


def are_saved_tensors_hooked() -> bool:
    """Return whether `torch.autograd.graph.saved_tensors_hooks`, or a checkpoint, is in force.

    Public: none; that context has no question about itself.
    """
    return _saved_tensors_hooks(False) is not None


def top_saved_tensors_hooks() -> Any:
    """Return the hooks that see what is saved now, as a pair that can be compared; None without any.

    Public: none, see `are_saved_tensors_hooked`.
    """
    return _saved_tensors_hooks(False)


def is_autocast_enabled(device_type: str) -> bool:
    """Return whether autocast is in force on a device type, of any kind.

    Public: `torch.is_autocast_enabled`, which raises an error for types without autocast, such as ``meta``.
    """
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def writes_in_place(operation: Any) -> bool:
    """Whether an operator (``torch.ops.aten...``) writes to an argument. Public: none."""
    return operation._schema.is_mutable


def argument_names(operation: Any) -> list[tuple[str, Any]]:
    """Names and defaults of the arguments of an operator (``torch.ops.aten...``). Public: none."""
    return [(argument.name, argument.default_value) for argument in operation._schema.arguments]


def run_backward(roots: tuple, gradients: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> tuple:
    """What ``torch.autograd.grad(roots, inputs, gradients, allow_unused=True)`` does, without its checks.

    Public: that function, which looks at arguments for half of its time where F and G are small.

    Args:
        roots: edges of a graph, from `torch.autograd.graph.get_gradient_edge`.
        gradients: of the roots' tensors, of their shape and dtype.
        inputs: tensors that the graph was made from. Hooks that are registered on them do not run.

    Returns:
        The gradient of each input, None for one that the roots do not depend on.
    """
    # PyTorch runs the hooks of the tensors that it differentiates by. They are the user's, and run when the
    # gradient that is returned from here reaches those tensors. Here too, a hook that halves would quarter.
    hooked = [hooks for t in inputs if (hooks := t._backward_hooks)]
    kept = [dict(hooks) for hooks in hooked]
    for hooks in hooked:
        hooks.clear()
    try:
        return _run_backward(
            roots, gradients, False, False, inputs, allow_unreachable=True, accumulate_grad=False
        )
    finally:
        for hooks, own in zip(hooked, kept, strict=True):
            hooks.update(own)


def is_compiled(module: nn.Module) -> bool:
    """Return whether `module` is what `torch.compile` returns.

    Public: none. The compiler takes a second to import, and whoever compiled something has imported it.
    """
    compiler = sys.modules.get("torch._dynamo")
    return compiler is not None and isinstance(module, compiler.OptimizedModule)


@contextmanager
def activation_memory_budget(share: float) -> Iterator[None]:
    """A context in which compiled graphs keep at most that share of what they would keep by themselves.

    Public: none; ``torch.compile(options=...)`` has options of the inductor alone.
    """
    patch: Callable = _private(
        "torch._functorch.config", "patch", "to set the memory that compiled graphs may keep"
    )
    with patch(activation_memory_budget=share):
        yield


def attention_kernels() -> tuple[Any, Any, tuple[Any, ...]]:
    """Return the kernels that `scaled_dot_product_attention` runs, as the counter of operations meets them.

    Public: none; that function chooses among them. The counter of PyTorch knows those of CUDA alone.

    Returns:
        The forward kernel of the CPU, its backward kernel, and the backward kernels of CUDA. Backward
        kernels compute the scores again before they differentiate them.
    """
    cpu = "_scaled_dot_product_flash_attention_for_cpu"
    cuda = (f"_scaled_dot_product_{kind}_attention_backward" for kind in ("flash", "efficient", "cudnn"))
    return (
        getattr(torch.ops.aten, cpu),
        getattr(torch.ops.aten, f"{cpu}_backward"),
        tuple(getattr(torch.ops.aten, name) for name in cuda),
    )
