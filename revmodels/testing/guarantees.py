"""What a reversible network promises, each promise a measurement on the network and on its stored twin.

The twin has the same weights and stores its activations, so that plain backpropagation says what is right.
`revmodels.testing.check.check_reversible` makes the pair from a network of this package; any other
implementation can be measured too, by building a `Subject` of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from revmodels.testing.instruments import changed, error, flat, leaves, loss, memory, others_reached, step
from revmodels.testing.network_under_test import (
    Check,
    Figure,
    Make,
    NotApplicableError,
    Residual,
    Subject,
    compared,
    each_residual,
    errors,
)
from revmodels.testing.replays import kept_tensors, rounding

SHARED = -1
"""In place of the position of a unit, for a parameter that several units have."""


def gradients(make: Make, tolerance: float) -> list[Figure]:
    """Gradients of inputs and parameters equal the stored twin's, in float64; none is lost."""
    subject = make(torch.float64)
    found, exact = (step(net, subject.inputs) for net in (subject.model, subject.twin))
    reached = [len(others_reached(net, subject.inputs)) for net in (subject.model, subject.twin)]
    what = "tensors that need a gradient, are no parameters, and get none"
    figures = [*compared(subject, found, exact, tolerance), Figure(what, reached[1] - reached[0], 0)]
    figures.append(kept_tensors(subject.model, subject.inputs))
    # What differs as it is needs no disturbance to show, and is named without one.
    return [*figures, *rounding(make)] if all(figure.holds for figure in figures) else figures


def inputs_without_gradient(make: Make, tolerance: float) -> list[Figure]:
    """Parameters get their gradients where the input needs none."""
    subject = make(torch.float64)
    _need_parameters(subject)
    found, exact = (
        step(net, subject.inputs, inputs_need_grad=False) for net in (subject.model, subject.twin)
    )
    return compared(subject, found, exact, tolerance)


def repeated_calls(make: Make, tolerance: float) -> list[Figure]:
    """Two forward passes may precede one backward pass."""
    subject = make(torch.float64)
    found, exact = (step(net, subject.inputs, calls=2) for net in (subject.model, subject.twin))
    return compared(subject, found, exact, tolerance)


def retained_graph(make: Make, tolerance: float) -> list[Figure]:
    """A graph kept by ``retain_graph=True`` can be differentiated again, with the same result."""
    subject = make(torch.float64)
    _need_parameters(subject)
    torch.manual_seed(1)
    parameters = [p for p, _ in subject.parameters.values()]
    value = loss(subject.model(*leaves(subject.inputs)))
    results = []
    for keep in (True, False):
        for p in parameters:
            p.grad = None
        value.backward(retain_graph=keep)
        results.append([p.grad for p in parameters])
    return errors(dict(zip(subject.parameters, zip(*results, strict=True), strict=True)), tolerance)


def autograd_grad(make: Make, tolerance: float) -> list[Figure]:
    """`torch.autograd.grad` reaches every parameter, with the stored twin's values."""
    subject = make(torch.float64)
    _need_parameters(subject)
    results = []
    for i, net in enumerate((subject.model, subject.twin)):
        torch.manual_seed(1)
        parameters = [pair[i] for pair in subject.parameters.values()]
        out = net(*leaves(subject.inputs))
        results.append(torch.autograd.grad(loss(out), parameters, allow_unused=True))
    pairs = dict(zip(subject.parameters, zip(*results, strict=True), strict=True))
    missing = sum(found is None and exact is not None for found, exact in pairs.values())
    unreached = Figure(f"parameters of {len(pairs)} that it does not reach", missing, 0)
    return [unreached, *errors({n: p for n, p in pairs.items() if p[0] is not None}, tolerance)]


def double_backward(make: Make, tolerance: float) -> list[Figure]:
    """A second derivative is refused, or right; never a wrong number."""
    subject = make(torch.float64)
    _need_parameters(subject)
    parameters, others = zip(*subject.parameters.values(), strict=True)
    try:
        exact = _second_derivatives(subject.twin, others, subject.inputs)
    except RuntimeError as refusal:
        raise NotApplicableError(f"F or G has no second derivative: {refusal}") from None
    try:
        found = _second_derivatives(subject.model, parameters, subject.inputs)
    except RuntimeError:
        return [Figure("wrong second derivatives, as it is refused", 0, 0)]
    return errors(dict(zip(subject.parameters, zip(found, exact, strict=True), strict=True)), tolerance)


def inverse(make: Make, tolerance: float) -> list[Figure]:
    """The input of every invertible unit follows from its output."""
    subject = make(torch.float64)
    if subject.round_trips is None:
        raise NotApplicableError("it has no inverse to call")
    subject.model.eval()
    subject.twin.eval()
    with torch.no_grad():
        figures = [
            Figure(f"relative error of the rebuilt input of {name}", error(flat(rebuilt), flat(x)), tolerance)
            for name, x, rebuilt in subject.round_trips()
        ]
    if not figures:
        raise NotApplicableError("every unit stores its input")
    return figures


def statistics_once(make: Make, tolerance: float) -> list[Figure]:
    """Running statistics of batch norm move once in a step, as in the stored twin."""
    subject = make(torch.float64)
    before = {name: pair[1].clone() for name, pair in subject.buffers.items()}
    for net in (subject.model, subject.twin):
        step(net, subject.inputs)
    moved = [name for name, b in before.items() if not torch.equal(b, subject.buffers[name][1])]
    if not moved:
        raise NotApplicableError("a step moves no buffer")
    return [
        Figure(
            f"relative error of {name} after a step",
            error(subject.buffers[name][0].double(), subject.buffers[name][1].double()),
            tolerance,
        )
        for name in before
    ]


def random_state(make: Make, tolerance: float) -> list[Figure]:
    """After the forward and after the backward pass the generator is where stored mode leaves it."""
    subject = make(torch.float64)
    states = []
    for net in (subject.model, subject.twin):
        torch.manual_seed(1)
        value = loss(net(*leaves(subject.inputs)))
        after_forward = torch.get_rng_state()
        value.backward()
        states.append((after_forward, torch.get_rng_state()))
    return [
        Figure(f"bytes of the generator's state that differ after the {when} pass", int((a != b).sum()), 0)
        for when, a, b in zip(("forward", "backward"), *states, strict=True)
    ]


def inputs_kept(make: Make, tolerance: float) -> list[Figure]:
    """The caller's tensors are neither emptied nor changed."""
    subject = make(torch.float64)
    given = leaves(subject.inputs)
    copies = [x.detach().clone() for x in given]
    value = loss(subject.model(*given))
    figures = [Figure("inputs changed by the forward pass", changed(given, copies), 0)]
    value.backward()
    return [*figures, Figure("inputs changed by the backward pass", changed(given, copies), 0)]


def block_by_block(make: Make, tolerance: float) -> list[Figure]:
    """A unit's gradients arrive before the unit in front of it is rebuilt, so that communication overlaps."""
    subject = make(torch.float64)
    if len(subject.units) < 2:
        raise NotApplicableError("there is one unit only")
    owner: dict[str, int] = {}
    for i, unit in enumerate(subject.units):
        owner.update({name: SHARED if name in owner else i for name in unit.parameters})
    late, arrived, reached = dict.fromkeys(owner, 0), 0, len(subject.units)

    def replayed(fn: Residual) -> None:
        nonlocal reached
        if len(fn.units) == 1:
            reached = min(reached, fn.units[0])

    def arrive(name: str, _: Tensor) -> None:
        nonlocal arrived
        arrived += 1
        late[name] = int(reached < owner[name])

    value = loss(subject.model(*leaves(subject.inputs)))
    with each_residual(subject, replayed) as stack:
        for name in owner:
            p = subject.parameters[name][0]
            stack.callback(p.register_post_accumulate_grad_hook(partial(arrive, name)).remove)
        value.backward()
    if not arrived:
        raise NotApplicableError("no unit has a parameter to train")
    return [Figure(f"late arrivals of the gradient of {name}", count, 0) for name, count in late.items()]


def flat_memory(make: Make, tolerance: float) -> list[Figure]:
    """A further unit adds no activation memory: not after the forward pass, and not at the peak."""
    subject = make(torch.float64)
    if subject.deepened is None:
        raise NotApplicableError("no unit can be repeated")
    (held, peak), (held_, peak_) = (memory(subject.deepened(n), subject.inputs) for n in (1, 3))
    return [
        Figure("bytes that a further unit holds after the forward pass", (held_ - held) / 2, 0),
        Figure("bytes that a further unit adds to the peak", (peak_ - peak) / 2, 0),
    ]


def one_extra_forward(make: Make, tolerance: float) -> list[Figure]:
    """A step evaluates F and G twice: once forward, once in the backward pass."""
    subject = make(torch.float64)
    calls: dict[Residual, int] = {}

    def count(fn: Residual) -> None:
        calls[fn] = calls.get(fn, 0) + 1

    with each_residual(subject, count):
        step(subject.model, subject.inputs)
    return [Figure(f"evaluations of {fn.name} in a step", n, 2 * len(fn.units)) for fn, n in calls.items()]


def autocast(make: Make, tolerance: float) -> list[Figure]:
    """Recomputation runs under the autocast state of the forward pass, whatever surrounds the backward."""
    figures = []
    for place, inside in (("forward", (True, False)), ("backward", (False, True))):
        subject = make(torch.float32)
        seen: dict[Residual, list[tuple]] = {}
        device = subject.inputs[0].device.type

        def record(fn: Residual, device: str = device, seen: dict[Residual, list[tuple]] = seen) -> None:
            enabled = torch.is_autocast_enabled(device)
            state = enabled, torch.get_autocast_dtype(device), torch.is_autocast_cache_enabled()
            seen.setdefault(fn, []).append(state if enabled else (False,))

        with each_residual(subject, record):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=inside[0]):
                value = loss(subject.model(*leaves(subject.inputs)))
            with torch.autocast(device, dtype=torch.bfloat16, enabled=inside[1]):
                value.backward()
        figures += [
            Figure(
                f"evaluations of {fn.name} under another state, with autocast around the {place} pass alone",
                sum(state != states[0] for state in states[1:]),
                0,
            )
            for fn, states in seen.items()
        ]
    return figures


GUARANTEES: dict[str, Check] = {
    check.__name__: check
    for check in (
        gradients,
        inputs_without_gradient,
        repeated_calls,
        retained_graph,
        autograd_grad,
        double_backward,
        inverse,
        statistics_once,
        random_state,
        inputs_kept,
        block_by_block,
        flat_memory,
        one_extra_forward,
        autocast,
    )
}
"""Every guarantee by name. The first line of its documentation says what it promises."""


def _need_parameters(subject: Subject) -> None:
    if not subject.parameters:
        raise NotApplicableError("it has no parameter to train")


def _second_derivatives(
    net: nn.Module, parameters: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    torch.manual_seed(1)
    value = loss(net(*leaves(inputs)))
    first = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
    penalty = torch.stack([g.square().sum() for g in first if g is not None]).sum()
    return torch.autograd.grad(penalty, parameters, allow_unused=True)
