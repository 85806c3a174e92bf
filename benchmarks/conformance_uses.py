"""Uses of a reversible network that tempt it to a wrong gradient in silence: residual functions, and checks.

A check of this file accepts two answers: the numbers of the stored twin, or an error that the implementation
raises itself and by name. Anything else, wrong numbers or whatever Python or PyTorch stumbles over, is a no.
"""

from __future__ import annotations

import copy
import linecache
import random
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from revmodels import RevModelsError
from revmodels.testing import guarantees
from revmodels.testing.instruments import changed, leaves, loss, step
from revmodels.testing.network_under_test import Check, Figure, Make, Subject, compared, errors

CHANNELS = 8
"""Of one stream."""
SIDE = 6
"""Pixels along a side of the image."""
SHAPE = (4, CHANNELS, SIDE, SIDE)
"""Of one stream of the batch."""
PEERS = ("memcnn", "revtorch", "revlib", "momentumnet")


class SeenDropout(nn.Module):
    """Dropout that remembers its masks, so that a twin can repeat the first one however it was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor] = []
        self.repeats: list[SeenDropout] = []

    def forward(self, x: Tensor) -> Tensor:
        """Zero half of `x` and double the rest."""
        if self.repeats:
            return x * self.repeats[0].masks[0]
        self.masks.append((torch.rand_like(x) > 0.5).to(x.dtype) * 2)
        return x * self.masks[-1]


def smooth() -> nn.Module:
    """Without batch norm or dropout."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 1)
    )


def normalized() -> nn.Module:
    """With batch norm."""
    return nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))


def dropping() -> nn.Module:
    """With dropout."""
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), SeenDropout(), nn.Tanh())


def drawing() -> nn.Module:
    """With PyTorch's dropout."""
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Dropout(0.5), nn.Tanh())


class Layer(nn.Module):
    """A convolution, to which each residual function of this file adds one peculiarity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)


class Shifted(Layer):
    """A parameter of the very shape of the input is added to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(SHAPE))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return self.conv(x + self.shift).tanh()


class Holding(Layer):
    """A tensor that needs a gradient is held in a list, where no module registers it."""

    def __init__(self) -> None:
        super().__init__()
        self.held = [torch.randn(SHAPE[1:], dtype=torch.float64, requires_grad=True)]

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return self.conv(x * self.held[0]).tanh()


class Auxiliary(Layer):
    """An auxiliary loss is kept besides the result, as mixtures of experts do."""

    auxiliary: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        y = self.conv(x).tanh()
        self.auxiliary = y.square().mean()
        return y


class Masked(Layer):
    """A mask is an attribute, and a frozen scale a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.linspace(0, 1, SIDE, dtype=torch.float64)
        self.register_buffer("scale", torch.ones(SIDE))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return self.conv(x).tanh() * self.mask * self.scale


class PythonRandom(Layer):
    """Draws from Python's generator, which PyTorch does not know."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return self.conv(x).tanh() * random.random()


class OwnGenerator(Layer):
    """Draws a mask from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def __deepcopy__(self, memo: dict) -> OwnGenerator:
        """A copy whose generator is at the same place; PyTorch copies none."""
        twin = OwnGenerator()
        twin.generator.set_state(self.generator.get_state())
        twin.conv = copy.deepcopy(self.conv, memo)
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return self.conv(x).tanh() * torch.rand(SIDE, generator=self.generator, dtype=x.dtype)


class Encoder(nn.Module):
    """PyTorch's transformer encoder with a padding mask: its fast path needs evaluation without gradients."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(SIDE * SIDE, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`; channels are tokens, and the last two are padding."""
        padding = (torch.arange(CHANNELS) >= CHANNELS - 2).expand(len(x), -1)
        return self.encoder(x.flatten(2), src_key_padding_mask=padding).view_as(x)


def complex_linear() -> nn.Module:
    """Two complex linear layers. Between them is no complex tanh: near its poles rounding grows."""
    return nn.Sequential(*(nn.Linear(SIDE, SIDE, dtype=torch.complex64) for _ in range(2)))


def spectral() -> nn.Module:
    """With spectral norm, whose vectors move in every forward pass in training mode."""
    return nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(CHANNELS, CHANNELS, 1)), nn.Tanh())


def instance_norm() -> nn.Module:
    """With instance norm that tracks statistics."""
    return nn.Sequential(
        nn.InstanceNorm2d(CHANNELS, track_running_stats=True), nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Tanh()
    )


def half_normalized() -> nn.Module:
    """With batch norm, on half of a stream: for a sequence inside F."""
    return nn.Sequential(nn.BatchNorm2d(CHANNELS // 2), nn.Tanh(), nn.Conv2d(CHANNELS // 2, CHANNELS // 2, 1))


def is_named(problem: BaseException) -> bool:
    """Whether an implementation raised this itself: a `RevModelsError`, or a ``raise`` in a peer's code."""
    if isinstance(problem, RevModelsError):
        return True
    frame, line = list(traceback.walk_tb(problem.__traceback__))[-1]
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    told = linecache.getline(frame.f_code.co_filename, line).strip()
    return package in PEERS and told.startswith(("raise", "assert"))


def right_or_refused(check: Check) -> Check:
    """`check`, for which an error that the implementation raises by name is an answer too."""

    def checked(make: Make, tolerance: float) -> list[Figure]:
        try:
            return check(make, tolerance)
        except Exception as problem:
            if not is_named(problem):
                raise
            return [Figure(f"wrong numbers, as it is refused with {type(problem).__name__}", 0, 0)]

    return checked


def _residuals(subject: Subject) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Every F and G of the model, and the twin's."""
    for ours, others in zip(subject.model.residuals, subject.twin.residuals, strict=True):  # type: ignore[arg-type]
        yield from zip(ours, others, strict=True)


def _backward(net: nn.Module, subject: Subject, between: Callable[[], object] | None = None) -> None:
    """A step, in which something happens between the forward and the backward pass."""
    torch.manual_seed(1)
    random.seed(1)
    value = loss(net(*leaves(subject.inputs)))
    if between is not None:
        between()
    value.backward()


def _of_parameters(subject: Subject, tolerance: float) -> list[Figure]:
    return errors({n: (p.grad, q.grad) for n, (p, q) in subject.parameters.items()}, tolerance)


def seeded(make: Make, tolerance: float) -> list[Figure]:
    """Gradients, with Python's generator where it was for the twin."""
    subject = make(torch.float64)
    for net in (subject.model, subject.twin):
        _backward(net, subject)
    return _of_parameters(subject, tolerance)


def held_tensors(make: Make, tolerance: float) -> list[Figure]:
    """Tensors held by F and G get the twin's gradients."""
    subject = make(torch.float64)
    for net in (subject.model, subject.twin):
        step(net, subject.inputs)
    pairs = {
        f"the tensor held by residual function {i}": (a.held[0].grad, b.held[0].grad)  # type: ignore[index]
        for i, (a, b) in enumerate(_residuals(subject))
    }
    return errors(pairs, tolerance)


def auxiliary_losses(make: Make, tolerance: float) -> list[Figure]:
    """Gradients of a loss to which auxiliary losses kept by F and G contribute."""
    subject = make(torch.float64)
    kept = list(zip(*_residuals(subject), strict=True))
    for net, modules in zip((subject.model, subject.twin), kept, strict=True):
        value = loss(net(*leaves(subject.inputs)))
        (value + torch.stack([m.auxiliary for m in modules]).sum()).backward()  # type: ignore[misc]
    return _of_parameters(subject, tolerance)


def kept_outputs(make: Make, tolerance: float) -> list[Figure]:
    """What forward hooks of all modules keep is neither emptied nor changed."""
    subject = make(torch.float64)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: Tensor | Sequence[Tensor]) -> None:
        kept.extend([out] if isinstance(out, Tensor) else out)

    hooks = [module.register_forward_hook(keep) for module in subject.model.modules()]
    value = loss(subject.model(*leaves(subject.inputs)))
    for hook in hooks:
        hook.remove()
    emptied = sum(t.untyped_storage().nbytes() == 0 for t in kept)
    whole = [t for t in kept if t.untyped_storage().nbytes()]
    copies = [t.detach().clone() for t in whole]
    value.backward()
    return [
        Figure(
            f"of {len(kept)} outputs kept by hooks, changed or emptied", emptied + changed(whole, copies), 0
        )
    ]


def complex_numbers(make: Make, tolerance: float) -> list[Figure]:
    """Gradients of complex parameters."""
    subject = make(torch.complex128)
    for net in (subject.model, subject.twin):
        loss(torch.view_as_real(net(subject.inputs[0].clone().requires_grad_(True)))).backward()
    return _of_parameters(subject, tolerance)


def changed_between(change: Callable[[nn.Module], object]) -> Check:
    """Gradients where `change` happens to the model between the passes; the twin stays as it was."""

    def check(make: Make, tolerance: float) -> list[Figure]:
        subject = make(torch.float64)
        _backward(subject.twin, subject)
        _backward(subject.model, subject, lambda: change(subject.model))
        return _of_parameters(subject, tolerance)

    return check


def evaluated(model: nn.Module) -> None:
    """Put it into evaluation mode."""
    model.eval()


def other_mask(model: nn.Module) -> None:
    """Give every F and G another mask."""
    for module in model.modules():
        if isinstance(module, Masked):
            module.mask = module.mask.flip(0)


def other_scale(model: nn.Module) -> None:
    """Change every buffer in place."""
    for buffer in model.buffers():
        buffer.mul_(2)


def other_data(model: nn.Module) -> None:
    """Assign other numbers to every parameter, past autograd's notice."""
    for p in model.parameters():
        p.data = p.data * 2


def evaluation(make: Make, tolerance: float) -> list[Figure]:
    """Gradients in evaluation mode."""
    subject = make(torch.float64)
    subject.model.eval()
    subject.twin.eval()
    return compared(
        subject, step(subject.model, subject.inputs), step(subject.twin, subject.inputs), tolerance
    )


def under_flop_counter(make: Make, tolerance: float) -> list[Figure]:
    """Gradients of a step whose operations `FlopCounterMode` counts."""
    subject = make(torch.float64)
    with FlopCounterMode(display=False):
        _backward(subject.model, subject)
    _backward(subject.twin, subject)
    return _of_parameters(subject, tolerance)


def functional(make: Make, tolerance: float) -> list[Figure]:
    """Gradients of weights that `torch.func.functional_call` puts into a frozen network."""
    subject = make(torch.float64)
    names = {p: n for n, p in subject.model.named_parameters()}
    weights = {p: p.detach().clone().requires_grad_(True) for p, _ in subject.parameters.values()}
    subject.model.requires_grad_(False)
    given = {names[p]: w for p, w in weights.items()}
    out = torch.func.functional_call(subject.model, given, tuple(leaves(subject.inputs)))
    loss(out).backward()
    _backward(subject.twin, subject)
    return errors({n: (weights[p].grad, q.grad) for n, (p, q) in subject.parameters.items()}, tolerance)


USES: tuple[tuple[str, Check, Callable[[], nn.Module]], ...] = (
    ("parameter of the input's shape", guarantees.gradients, Shifted),
    ("outputs kept by forward hooks", kept_outputs, smooth),
    ("complex linear, inputs kept", complex_numbers, complex_linear),
    ("tensor in a list that needs a gradient", held_tensors, Holding),
    ("auxiliary losses kept by F", auxiliary_losses, Auxiliary),
    ("eval() between the passes", changed_between(evaluated), normalized),
    ("mask replaced between the passes", changed_between(other_mask), Masked),
    ("buffer changed between the passes", changed_between(other_scale), Masked),
    ("p.data replaced between the passes", changed_between(other_data), smooth),
    ("functional_call on frozen weights", functional, smooth),
    ("statistics once, nested sequence", guarantees.statistics_once, half_normalized),
    ("statistics once, instance norm", guarantees.statistics_once, instance_norm),
    ("spectral norm in training", guarantees.gradients, spectral),
    ("Python's random in F", seeded, PythonRandom),
    ("generator of F's own", seeded, OwnGenerator),
    ("TransformerEncoder, padding, eval()", evaluation, Encoder),
    ("FlopCounterMode around a step", under_flop_counter, smooth),
)
"""Name, check, and what makes the residual functions."""
