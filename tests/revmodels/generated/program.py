"""Runs a case's events on its network and writes down everything that a user could see."""

from __future__ import annotations

import copy
import io
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from revmodels import ReversibleBlock
from tests.revmodels.generated.case import Case, Event
from tests.revmodels.generated.hooks import Seen, put_on
from tests.revmodels.generated.network import make_network, trained
from tests.revmodels.generated.ordinary import stream_of

Entry = tuple[str, Any]


@dataclass
class Call:
    """One forward pass: what went in, what came out and what else may be differentiated."""

    inputs: list[Tensor]
    outs: tuple[Tensor, ...]
    kept: list[Tensor]
    functional: dict[str, Tensor] = field(default_factory=dict)
    autocast_backward: bool = False
    frozen_copies: list[Tensor] = field(default_factory=list)


class Program:
    """A case under way.

    Args:
        case: network and events.
        stored: whether it is the twin, which stores whatever the case says.
        compiled: whether it is compiled.
        disturbance: relative size of a disturbance of the inputs, to see how it grows.
        cached: whether autocast keeps what it has cast, as it does unless told otherwise.

    Attributes:
        log: (what, value) in the order in which it was seen.
        error: what ended the run, if anything did.
        at: number of the event that ended it.
    """

    def __init__(
        self,
        case: Case,
        *,
        stored: bool,
        compiled: bool = False,
        disturbance: float = 0.0,
        cached: bool = True,
    ) -> None:
        self.case, self.stored, self.disturbance, self.cached = case, stored, disturbance, cached
        self.is_compiled = compiled
        self.log: list[Entry] = []
        self.error: Exception | None = None
        self.at = -1
        self.calls: list[Call] = []
        self.seen = Seen()
        self.network = make_network(case)
        self.compiled: Callable[..., tuple[Tensor, ...]] | None = None

    def run(self) -> Program:
        """Do everything, or as much as goes."""
        stream = stream_of(self.case.kind, self.case.batch)
        self.shape = list(stream.shape)
        self.split = stream.channels
        with ExitStack() as stack:
            try:
                self._start(stack)
                for at, event in enumerate(self.case.events):
                    self.at = at
                    self._do(event)
                    self._look(f"event {self.at} ({event[0]})")
            except Exception as error:
                self.error = error
        self._look_at_gradients_kept()
        return self

    def _start(self, stack: ExitStack) -> None:
        self._switch(self.case.strategy, self.case.anchor_every)
        put_on(self.case, self.network, self.seen, stack)
        random.seed(self.case.seed)
        torch.manual_seed(self.case.seed + 1)
        self.draws = torch.Generator().manual_seed(self.case.seed)
        if self.is_compiled:
            self.compiled = torch.compile(self.network, backend="aot_eager")

    def _do(self, event: Event) -> None:
        name, *args = event
        getattr(self, f"_{name}")(*args)

    # Forward passes.

    def _call(self, how: str) -> None:
        for module in self.network.modules():
            if hasattr(module, "prepare"):
                module.prepare()
            if hasattr(module, "kept"):
                module.kept = None
        self.seen.supervised = []
        leaves = self._leaves(how)
        inputs = [self._laid_out(x) for x in leaves]
        functional: dict[str, Tensor] = {}
        self.seen.in_call = True
        try:
            with _around(how, cached=self.cached):
                if how == "functional":
                    named = self.network.named_parameters()
                    functional = {n: p.detach().clone().requires_grad_() for n, p in named}
                    outs = functional_call(self.network, functional, tuple(inputs))
                elif how == "checkpointed":
                    outs = checkpoint(self.network, *inputs, use_reentrant=False)
                elif how == "second sequence":
                    outs = self.network(*inputs, second=True)
                else:
                    outs = (self.network if self.compiled is None else self.compiled)(*inputs)
        finally:
            self.seen.in_call = False
        kept = [m.kept for m in self.network.modules() if getattr(m, "kept", None) is not None]
        call = Call(leaves, outs, [*kept, *self.seen.supervised], functional, how == "backward's autocast")
        self.calls.append(call)
        for i, y in enumerate(outs):
            self.log.append((f"output {i} of call {len(self.calls) - 1}", y.detach().clone()))
        seen = [m.seen for m in self.network.modules() if getattr(m, "seen", None) is not None]
        self.seen.outputs["inputs kept by F"] += seen

    def _leaves(self, how: str) -> list[Tensor]:
        if how == "same input" and self.calls:
            return self.calls[-1].inputs
        dtype = getattr(torch, self.case.dtype)
        shape = list(self.shape)
        count = 2 if self.case.pair else 1
        shape[self.split] *= 3 - count
        if self.case.layout == "same memory" and self.case.pair:
            count = 1
        found = [torch.randn(shape, generator=self.draws, dtype=torch.float64) for _ in range(count)]
        if self.disturbance:
            generator = torch.Generator().manual_seed(1)
            found = [
                x * (1 + self.disturbance * torch.randn(x.shape, generator=generator, dtype=x.dtype))
                for x in found
            ]
        leaves = [x.to(dtype) if dtype != torch.complex128 else torch.complex(x, x.flip(-1)) for x in found]
        return [x.requires_grad_(how != "frozen input") for x in leaves] * (
            2 // count if self.case.pair else 1
        )

    def _laid_out(self, x: Tensor) -> Tensor:
        layout = self.case.layout
        if layout == "channels last" and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        if layout == "strided":
            return torch.stack((x, x), -1)[..., 0]
        if layout == "expanded" and x.dim() > 1:
            return x[:1].expand(x.shape)
        return x * 1 if layout == "derived" else x

    # Backward passes.

    def _loss(self, number: int, how: str) -> Tensor | None:
        call = self.calls[number]
        outs = list(call.outs)
        if not any(t.requires_grad for t in (*outs, *call.kept)):
            return None
        if how == "in place":
            outs = [y.mul_(2.0) for y in outs]
        elif how == "first":
            outs = outs[:1]
        elif how == "second":
            outs = outs[-1:]
        elif how == "transposed":
            outs = [y.transpose(0, -1) for y in outs]
        elif how == "detached half":
            outs = [outs[0], *(y.detach() for y in outs[1:])]
        total: Any = 0.0
        for y in (*outs, *call.kept):
            if how == "sum":
                part = y.sum()
            elif how == "square":
                part = y.abs().square().mean()
            else:
                weights = torch.linspace(-1, 1, y.numel()).to(y.dtype)
                part = (y.reshape(-1) * weights).sum() + y.abs().square().mean()
            total = total + (part.real if part.is_complex() else part)
        return total if total.requires_grad else None

    def _backward(self, number: int, how: str, retain: bool) -> None:
        value = self._loss(number, how)
        if value is not None:
            with _autocast(cached=self.cached) if self.calls[number].autocast_backward else nullcontext():
                value.backward(retain_graph=retain)

    def _joint(self, number: int, how: str, retain: bool) -> None:
        values = [self._loss(i, how) for i in range(len(self.calls))]
        found = [v for v in values if v is not None]
        if found:
            torch.stack(found).sum().backward()

    def _anomaly(self, number: int, how: str, retain: bool) -> None:
        with torch.autograd.set_detect_anomaly(True):
            self._backward(number, how, retain)

    def _thread(self, number: int, how: str, retain: bool) -> None:
        errors: list[Exception] = []

        def work() -> None:
            try:
                self._backward(number, how, retain)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    def _grad(self, number: int, how: str, targets: str, retain: bool) -> None:
        value = self._loss(number, how)
        wanted = self._targets(number, targets)
        if value is not None and wanted:
            found = torch.autograd.grad(value, list(wanted.values()), retain_graph=retain, allow_unused=True)
            self.log += [(f"returned gradient of {n}", g) for n, g in zip(wanted, found, strict=True)]

    def _double(self, number: int, how: str, retain: bool) -> None:
        value = self._loss(number, how)
        wanted = self._targets(number, "all")
        if value is None or not wanted:
            return
        tensors = list(wanted.values())
        first = torch.autograd.grad(value, tensors, create_graph=True, allow_unused=True)
        penalty = [g.abs().square().sum() for g in first if g is not None and g.requires_grad]
        if penalty:
            second = torch.autograd.grad(torch.stack(penalty).sum(), tensors, allow_unused=True)
            self.log += [(f"second derivative by {n}", g) for n, g in zip(wanted, second, strict=True)]

    def _targets(self, number: int, which: str) -> dict[str, Tensor]:
        inputs = {f"input {i}": x for i, x in enumerate(self.calls[number].inputs)}
        weights = {n: p for n, p in trained(self.network).items() if p.requires_grad}
        if which == "first parameters":
            weights = dict(list(weights.items())[:1])
        elif which == "last parameters":
            weights = dict(list(weights.items())[-2:])
        chosen = inputs if which == "inputs" else weights if which != "all" else inputs | weights
        return {n: t for n, t in chosen.items() if t.requires_grad}

    # What happens between them.

    def _switch(self, strategy: str, every: int | None) -> None:
        if self.stored:
            return
        body = self.network.body
        body.anchor_every = None
        body.strategy = strategy
        body.anchor_every = None if strategy == "budget" else every

    def _copy(self, how: str) -> None:
        if how == "deepcopy":
            self.network = copy.deepcopy(self.network)
        elif how == "pickle":
            file = io.BytesIO()
            torch.save(self.network, file)
            file.seek(0)
            self.network = torch.load(file, weights_only=False)
        else:
            fresh = make_network(self.case)
            fresh.load_state_dict(self.network.state_dict())
            self.network = fresh
            self._switch(self.case.strategy, self.case.anchor_every)
        self.compiled = None

    def _change(self, what: str, where: int) -> None:
        net = self.network
        modules = list(net.body.blocks.modules())
        module = modules[where % len(modules)]
        parameters = list(net.parameters())
        chosen = parameters[where % len(parameters)] if parameters else None
        with torch.no_grad():
            if what in ("eval", "train"):
                net.train(what == "train")
            elif what == "eval of a layer":
                module.train(not module.training)
            elif what == "data" and chosen is not None:
                chosen.data = chosen.data * 1.25
            elif what == "in place" and chosen is not None:
                chosen.mul_(1.25)
            elif what in ("freeze", "unfreeze") and chosen is not None:
                chosen.requires_grad_(what == "unfreeze")
            elif what == "freeze all":
                net.requires_grad_(False)
            elif what == "state":
                for m in modules:
                    if hasattr(m, "change"):
                        m.change()
            elif what in ("buffer", "buffers"):
                for b in list(net.buffers())[: 1 if what == "buffer" else None]:
                    if b.is_floating_point() and not b.requires_grad:
                        b.mul_(1.5)
            elif what == "new parameter":
                _replace_parameter(modules, where)
            elif what == "optimizer":
                torch.optim.SGD(net.parameters(), lr=0.1).step() if parameters else None
            elif what in ("zero", "none"):
                net.zero_grad(set_to_none=what == "none")
            elif what == "draw":
                torch.rand(2)
            elif what == "input":
                for x in self.calls[-1].inputs:
                    x.mul_(1.5)
            elif what == "load":
                net.load_state_dict(
                    {n: t * 1.25 if t.is_floating_point() else t for n, t in net.state_dict().items()}
                )
            elif what == "half":
                net.to(torch.float32).to(getattr(torch, self.case.dtype))
            elif what == "append":
                unit = net.body.blocks[0]
                net.body.blocks.append(ReversibleBlock(unit.g, unit.f, unit.coupling, split_dim=self.split))

    # What is seen.

    def _look(self, label: str) -> None:
        self.log.append((f"{label}: generator state", torch.get_rng_state()))
        self.log.append(
            (f"{label}: state of Python's generator", zlib.crc32(repr(random.getstate()).encode()))
        )
        for name, t in trained(self.network).items():
            self.log.append((f"{label}: gradient of {name}", None if t.grad is None else t.grad.clone()))
        for number, call in enumerate(self.calls):
            for i, x in enumerate(call.inputs):
                self.log.append((f"{label}: gradient of input {i} of call {number}", _copied(x.grad)))
                self.log.append((f"{label}: input {i} of call {number}", x.detach().clone()))
            for name, p in call.functional.items():
                self.log.append((f"{label}: gradient of {name} of call {number}", _copied(p.grad)))
            for i, y in enumerate(call.outs):
                self.log.append((f"{label}: output {i} of call {number}", y.detach().clone()))
        for name, b in self.network.named_buffers():
            self.log.append((f"{label}: buffer {name}", b.detach().clone()))
        # After every event: one that fails may have overwritten some of it, and the twin's may not have.
        for name, tensors in self.seen.outputs.items():
            self.log += [(f"{label}: {name}, {i} kept", t.detach().clone()) for i, t in enumerate(tensors)]
        for name, m in self.network.named_modules():
            if isinstance(getattr(m, "generator", None), torch.Generator):
                self.log.append((f"{label}: generator of {name}", m.generator.get_state()))
            if hasattr(m, "training"):
                self.log.append((f"{label}: training of {name}", m.training))

    def _look_at_gradients_kept(self) -> None:
        # A gradient by some tensors alone leaves out parts of the twin's graph, and their hooks.
        if self.error is None and all(event[0] != "grad" for event in self.case.events):
            for name, gradients in self.seen.gradients.items():
                self.log.append((f"{name}, gradients kept", len(gradients)))
                self.log += [(f"{name}, gradient {i} kept", _copied(g)) for i, g in enumerate(gradients)]


def _copied(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.detach().clone()


def _replace_parameter(modules: list[nn.Module], where: int) -> None:
    owners = [m for m in modules if m._parameters]
    if owners:
        owner = owners[where % len(owners)]
        name, p = next(iter(owner._parameters.items()))
        if p is not None:
            setattr(owner, name, nn.Parameter(p * 1.25))


def _autocast(*, cached: bool) -> AbstractContextManager:
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cached)


@contextmanager
def _around(how: str, *, cached: bool) -> Iterator[None]:
    contexts: dict[str, Callable[[], AbstractContextManager]] = {
        "no grad": torch.no_grad,
        "inference": torch.inference_mode,
        "saved elsewhere": save_on_cpu,
        "packed": lambda: saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()),
        "autocast": lambda: _autocast(cached=cached),
    }
    with contexts.get(how, nullcontext)():
        yield
