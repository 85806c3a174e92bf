"""Single layers whose outputs units keep: the same values and gradients, fewer products, and when not."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from revmodels import Precision, ReversibleBlock, ReversibleSequence, StageEntry
from revmodels.engine.kept_layers import KeptLayers, keepable_layers, keepable_layers_of
from revmodels.errors import ReplayError
from revmodels.torch_internals import TorchDispatchMode
from tests.revmodels.blocks import assert_equal_gradients, gradients, make_input, make_sequence

WIDTH = 6
PRODUCTS = (
    torch.ops.aten.addmm.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
)


class Products(TorchDispatchMode):
    """Counts products, those of gradients too."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in PRODUCTS
        return func(*args, **(kwargs or {}))


def keep(net, *modes, layers=None):
    """Let the units hold their layers' outputs: all that can be kept, or those named."""
    units = list(net.units())
    net.strategy = "budget"
    net.plans.tried = tuple(itertools.islice(itertools.cycle(modes or ("reverse",)), len(units)))
    net.plans.tried_layers = tuple(tuple(layers or keepable_layers_of(unit)) for unit in units)
    return net


def sequence(make, depth=3, **options):
    torch.manual_seed(0)
    return ReversibleSequence([ReversibleBlock(make(), make(), **options) for _ in range(depth)]).double()


def batch(*shape):
    x = torch.randn(*(shape or (5, 2 * WIDTH)), dtype=torch.float64)
    return x.requires_grad_()


def check(net, x, *modes, layers=None, tolerance=1e-11):
    """One step that keeps layers against the stored twin's; the number of products that it saves."""
    with Products() as stored:
        out, exact, buffers, state = gradients(net, "store", x)
    net.strategy = "reverse"
    with Products() as rebuilt:
        gradients(net, "reverse", x)
    keep(net, *modes, layers=layers)
    with Products() as kept:
        out_, found, buffers_, state_ = gradients(net, "budget", x)
    torch.testing.assert_close(out_, out, rtol=tolerance, atol=tolerance)
    assert_equal_gradients(exact, found, tolerance)
    assert all(torch.equal(b, buffers_[name]) for name, b in buffers.items())
    assert torch.equal(state, state_)
    assert stored.count <= kept.count
    return rebuilt.count - kept.count


def linear(**options):
    return nn.Linear(WIDTH, WIDTH, **options)


def perceptron():
    return nn.Sequential(linear(), nn.Dropout(0.3), nn.Tanh(), linear(bias=False))


@pytest.mark.parametrize("mode", ["reverse", "checkpoint"])
@pytest.mark.parametrize("layers", [("f.0",), ("g.3",), ("f.3", "g.0"), ("f.0", "f.3", "g.0", "g.3")])
def test_every_gradient_with_layers_in_every_position(layers, mode):
    saved = check(sequence(perceptron), batch(), mode, layers=layers)
    # Where the input is kept, the last layers are not computed anyway.
    lasts = {"f.3", "g.3"}
    assert saved == 3 * len(set(layers) | lasts if mode == "checkpoint" else layers)


@pytest.mark.parametrize("kind", ["conv_basic", "conv_bottleneck", "mlp_dropout"])
def test_residual_functions_of_the_presets(kind):
    torch.manual_seed(0)
    net, x = make_sequence(kind, 3), make_input(kind)
    assert check(net, x, "reverse", "checkpoint", "store") > 0


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Conv1d(WIDTH, WIDTH, 3, padding=2, dilation=2, groups=2), (2, 2 * WIDTH, 7)),
        (lambda: nn.Conv2d(WIDTH, WIDTH, (3, 1), padding=(1, 0), bias=False), (2, 2 * WIDTH, 4, 5)),
        (lambda: nn.Conv3d(WIDTH, WIDTH, 3, padding=1), (2, 2 * WIDTH, 3, 2, 3)),
        (linear, (2, 3, 2 * WIDTH)),
    ],
)
def test_convolutions_of_every_dimension_and_rows_of_tokens(make, shape):
    torch.manual_seed(0)
    dim = -1 if len(shape) == 3 and shape[-1] == 2 * WIDTH else 1
    blocks = [
        ReversibleBlock(nn.Sequential(make(), nn.Tanh(), make()), make(), split_dim=dim) for _ in range(2)
    ]
    net = ReversibleSequence(blocks, split_dim=dim).double()
    # A layer that is F itself has no name in it, and is computed again.
    assert check(net, batch(*shape)) == 2 * 2


def test_channels_last():
    torch.manual_seed(0)
    net = make_sequence("conv_basic", 2).to(memory_format=torch.channels_last)
    x = make_input("conv_basic").detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert check(net, x) == 2 * 4


@pytest.mark.parametrize("frozen", ["weight", "bias", "all", "input"])
def test_what_is_frozen_gets_no_gradient(frozen):
    net, x = sequence(perceptron), batch()
    for name, p in net.named_parameters():
        p.requires_grad_(not (frozen == "all" or (".0." in name and name.endswith(frozen))))
    check(net, x if frozen != "input" else x.detach())


def test_stage_entries_keep_layers_beside_their_input():
    torch.manual_seed(0)
    entry = StageEntry(perceptron(), perceptron(), linear(), nn.Identity())
    net = ReversibleSequence([entry, ReversibleBlock(perceptron(), perceptron())]).double()
    assert check(net, batch(), "checkpoint", "reverse") > 0


@pytest.mark.parametrize("coupling", ["midpoint", "momentum", "bdia"])
def test_other_couplings(coupling):
    assert check(sequence(perceptron, coupling=coupling), batch(), tolerance=1e-9) == 3 * 4


def test_an_exact_coupling_is_rebuilt_bit_for_bit():
    net, x = sequence(perceptron, exact=True), batch()
    seen = {}
    net.observer = lambda i, x1, x2: seen.setdefault(net.strategy, []).append((x1.clone(), x2.clone()))
    check(net, x)
    for pair, other in zip(seen["reverse"], seen["budget"], strict=True):
        assert all(map(torch.equal, pair, other))


class Own(nn.Module):
    """Attention as people write it, which the engine watches."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), linear(), linear(bias=False)

    def forward(self, x):
        y = self.qkv(self.norm(x))
        return self.out(y.unsqueeze(0).softmax(-1).squeeze(0) * y.tanh())


def test_layers_of_modules_of_people_s_own():
    assert check(sequence(Own), batch()) == 3 * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_within_the_units(dtype):
    """The kept output is that of the forward pass, so only what it is made from is rounded otherwise."""
    net, x = sequence(Own).float(), batch().float().detach().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        out, exact, *_ = gradients(net, "checkpoint", x)
        out_, found, *_ = gradients(keep(net, "checkpoint"), "budget", x)
    assert torch.equal(out, out_)
    assert_equal_gradients(exact, found, 1e-6)
    for module in net.units():
        module.precision = Precision(compute="bf16")
    out, exact, *_ = gradients(net, "checkpoint", x)
    out_, found, *_ = gradients(keep(net, "checkpoint"), "budget", x)
    assert torch.equal(out, out_)
    assert_equal_gradients(exact, found, 1e-6)


class Island(nn.Module):
    """Full precision within autocast."""

    def __init__(self):
        super().__init__()
        self.first, self.second = linear(), linear()

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.second(self.first(x.float()).tanh())


def test_full_precision_within_autocast_stays_full():
    net, x = sequence(Island, depth=1).float(), batch().float().detach().requires_grad_()
    _, exact, *_ = gradients(net, "store", x)
    keep(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    loss = (out * weights).sum() + out.square().mean()
    found = torch.autograd.grad(loss, [*net.parameters(), x])
    assert_equal_gradients(exact, dict(zip(exact, found, strict=True)), 1e-5)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = linear(), linear()

    def forward(self, x):
        return self.other(self.one(self.one(x).tanh()).tanh())


def test_a_layer_that_is_called_twice_is_computed_again():
    assert check(sequence(Twice), batch()) == 3 * 2


def test_one_module_as_f_and_g_and_one_block_in_two_places():
    torch.manual_seed(0)
    function = perceptron()
    block = ReversibleBlock(function, function)
    net = ReversibleSequence([block, ReversibleBlock(perceptron(), function), block]).double()
    assert check(net, batch()) == 3 * 4


class InPlace(nn.Module):
    """Writes to what a layer returned, by itself or through a view."""

    def __init__(self, how):
        super().__init__()
        self.how, self.first, self.second = how, linear(), linear()

    def forward(self, x):
        y = self.first(x)
        if self.how == "view":
            y[:, : WIDTH // 2].mul_(0.5)
        elif self.how == "detached":
            y.detach().clamp_(-0.1, 0.1)
        else:
            y = F.relu_(y)
        return self.second(y)


@pytest.mark.parametrize("how", ["itself", "view", "detached"])
def test_an_output_that_is_written_to_is_computed_again(how):
    assert check(sequence(lambda: InPlace(how)), batch()) == 3 * 2


def test_an_activation_in_place_behind_the_layer():
    make = lambda: nn.Sequential(linear(), nn.ReLU(inplace=True), linear())  # noqa: E731
    assert check(sequence(make), batch()) == 3 * 2


class Derived(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def wrapped():
    layer = linear()
    layer.forward = lambda x, layer=layer: 3 * nn.Linear.forward(layer, x)
    return layer


def hooked():
    layer = linear()
    layer.register_forward_hook(lambda layer, args, out: 2 * out)
    return layer


@pytest.mark.parametrize(
    "make",
    [
        lambda: Derived(WIDTH, WIDTH),
        wrapped,
        hooked,
        lambda: nn.utils.parametrizations.weight_norm(linear()),
        lambda: prune.random_unstructured(linear(), "weight", 0.5),
        lambda: nn.ConvTranspose1d(WIDTH, WIDTH, 1),
        lambda: nn.Conv1d(WIDTH, WIDTH, 3, padding="same"),
        lambda: nn.Conv1d(WIDTH, WIDTH, 3, padding=1, padding_mode="circular"),
        lambda: nn.Linear(WIDTH, WIDTH, dtype=torch.complex64),
        lambda: torch.compile(nn.Sequential(linear()), backend="eager"),
        lambda: ReversibleBlock(linear(), linear()),
    ],
    ids=[
        *("subclass", "wrapped", "hooked", "parametrized", "pruned", "transposed", "same", "circular"),
        *("complex", "compiled", "block"),
    ],
)
def test_layers_that_are_no_candidates(make):
    assert keepable_layers(nn.Sequential(make(), linear())) == ["1"]


def test_a_hook_that_is_added_later_or_on_the_whole_function_misses_no_call():
    net, x, calls = sequence(perceptron), batch(), []
    for unit in net.units():
        unit.f.register_forward_hook(lambda *_: calls.append("function"))
    check(net, x)
    whole = len(calls)
    keep(net)
    out = net(x)
    for unit in net.units():
        unit.f[0].register_forward_hook(lambda *_: calls.append("layer"))
    out.sum().backward()
    assert len(calls) - whole == 3 * 3  # in both passes the functions', in one the layers'


class Checkpointed(nn.Module):
    """Computes its first layer again within the backward pass."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Sequential(linear(), nn.Tanh(), linear()), linear()

    def forward(self, x):
        return self.outer(checkpoint(self.inner, x, use_reentrant=False))


def test_a_checkpoint_within_a_unit():
    """Its layers are computed again, which it insists on; those beside it are kept."""
    assert check(sequence(Checkpointed), batch()) == 3 * 2


def test_a_checkpoint_around_the_sequence():
    net, x = sequence(perceptron), batch()
    _, exact, *_ = gradients(net, "store", x)
    keep(net)
    out = checkpoint(lambda x: torch.manual_seed(1) and net(x), x, use_reentrant=False)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    found = torch.autograd.grad((out * weights).sum() + out.square().mean(), [*net.parameters(), x])
    assert_equal_gradients(exact, dict(zip(exact, found, strict=True)), 1e-11)


def test_backward_twice():
    net, x = keep(sequence(Own), "reverse", "checkpoint"), batch()
    loss = net(x).square().sum()
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in net.named_parameters()}
    loss.backward()
    for name, p in net.named_parameters():
        assert torch.equal(p.grad, 2 * once[name])


def test_a_weight_that_is_modified_between_the_passes_is_refused():
    net = keep(sequence(perceptron))
    out = net(batch())
    with torch.no_grad():
        net.blocks[0].f[0].weight.mul_(2)
    with pytest.raises(ReplayError, match="modified in place between forward and backward"):
        out.sum().backward()


class Leaking(nn.Module):
    """Hands what a layer returned to somebody else."""

    def __init__(self, found):
        super().__init__()
        self.first, self.second, self.found = linear(), linear(), found

    def forward(self, x):
        y = self.first(x)
        self.found(y.detach())
        return self.second(y.tanh())


def test_an_output_that_somebody_writes_to_between_the_passes_is_refused():
    found = []
    net = keep(sequence(lambda: Leaking(found.append), depth=1))
    out = net(batch())
    found[0].zero_()
    with pytest.raises(ReplayError, match="the output of a layer"):
        out.sum().backward()


class Otherwise(nn.Module):
    """Calls its layers in another way in the backward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.calls = linear(), [0]

    def forward(self, x):
        self.calls[0] += 1
        return self.first(x).tanh() if self.calls[0] < 2 else self.first(self.first(x)).tanh()


def test_a_second_call_in_the_replay_is_refused():
    function, x = Otherwise().double(), batch(5, WIDTH)
    kept = KeptLayers(function, ["first"], "F")
    with kept.recorded():
        function(x)
    with (
        kept.replayed(kept.take()),
        pytest.raises(ReplayError, match="otherwise in the backward pass"),
    ):
        function(x)
    assert "forward" not in vars(function.first)


def test_compiled_networks_compute_their_layers_again():
    torch._dynamo.reset()
    net, x = sequence(lambda: nn.Sequential(linear(), nn.Tanh(), linear()), depth=2), batch()
    _, exact, *_ = gradients(net, "store", x)
    compiled = torch.compile(keep(net), fullgraph=True, backend="aot_eager")
    _, found, *_ = gradients(compiled, "budget", x)
    assert_equal_gradients(exact, {n.removeprefix("_orig_mod."): g for n, g in found.items()}, 1e-11)
    torch._dynamo.reset()


def test_ddp(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        net, x = sequence(Own), batch()
        net(x).square().sum().backward()
        exact = {name: p.grad.clone() for name, p in net.named_parameters()}
        net.zero_grad()
        nn.parallel.DistributedDataParallel(keep(net))(x).square().sum().backward()
        assert_equal_gradients(exact, {name: p.grad for name, p in net.named_parameters()}, 1e-11)
    finally:
        distributed.destroy_process_group()
