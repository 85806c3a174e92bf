"""The linear couplings: formulas, gradients against the stored twin, and how errors grow in the inverse.

With abs(alpha) below 1 the inverse multiplies rounding errors in every block. The sequences here have at most
four blocks, so that the predicted growth stays below 300 for every coupling of the table, and 1e-12 in
float64 is still a bar: a wrong number in a formula is seen at 1e-1.
"""

import copy
import math

import pytest
import torch
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence
from revmodels.compiled.unit_signature import signature
from revmodels.coupling.linear import (
    COUPLINGS,
    Coupling,
    bdia,
    damped_midpoint,
    find_coupling,
    inverse_error_growth,
    leapfrog,
    midpoint,
    momentum,
    revdeq,
    scaled,
)
from revmodels.coupling.remainders import combine_kept, dropped, ratio_of, separate_kept
from revmodels.errors import CouplingError, PrecisionError, RangeError
from revmodels.measure import fidelity, peak_memory, predict_memory
from revmodels.testing import check_reversible
from revmodels.testing.instruments import memory as bytes_of_a_step
from tests.covering import wide
from tests.revmodels.truth.judge import put

WIDTH, EXACT = 6, 1e-12
FIXED = [name for name in COUPLINGS if name != "bdia"]
STRATEGIES = ("reverse", "anchors", "checkpoint", "recursive", "budget", "compile")


class Residual(nn.Module):
    """A small network, with dropout and a context if there is one."""

    def __init__(self, drop=0.2, size=1.0, offset=0.0):
        super().__init__()
        self.offset = offset
        self.first, self.last = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH)
        self.drop, self.size = nn.Dropout(drop), size

    def forward(self, x, context=None):
        x = self.first(x) if context is None else self.first(x) + context
        return self.size * self.last(self.drop(torch.tanh(x))) + self.offset


def sequence(coupling, depth=3, strategy="reverse", **options):
    torch.manual_seed(0)
    blocks = [
        ReversibleBlock(Residual(**options), Residual(**options), coupling=coupling) for _ in range(depth)
    ]
    return put(ReversibleSequence(blocks).double(), strategy)


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(True)


def loss_of(out):
    return (
        out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    ).sum() + out.square().mean()


def step(net, x, context=None):
    """Output and every gradient of a step, and the next random number."""
    torch.manual_seed(3)
    named = {} if context is None else {"context": context}
    out = net(x, **named)
    found = torch.autograd.grad(loss_of(out), [x, *named.values(), *net.parameters()], allow_unused=True)
    return [out.detach(), *found, torch.rand(())]


def agree(found, exact, tolerance=EXACT):
    for a, b in zip(found, exact, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a - b).norm() <= tolerance * b.norm().clamp_min(1e-3)


def compiled(net):
    torch._dynamo.reset()
    return torch.compile(net, fullgraph=True, backend="aot_eager")


# The table


@pytest.mark.parametrize(
    ("coupling", "three"),
    [
        ("additive", (1, 0, 1)),
        (midpoint(h=0.3), (1, 0, 0.6)),
        (leapfrog(h=0.5), (-1, 2, 0.25)),
        (damped_midpoint(a=0.25, h=0.3), (0.25, 0.75, 0.3)),
        (momentum(gamma=0.75), (-0.75, 1.75, 0.25)),
        (revdeq(b=0.25), (0.75, 0, 0.25)),
        (scaled(factor=0.3), (0.3, 0, 1)),
        (Coupling(2, -0.5, 3), (2, -0.5, 3)),
    ],
)
def test_both_halves_are_the_rule_of_three_numbers(coupling, three):
    alpha, beta, scale = three
    block = ReversibleBlock(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), coupling).double()
    x1, x2 = numbers(3, WIDTH), numbers(3, WIDTH, seed=1)
    y1 = alpha * x1 + beta * x2 + scale * block.f(x2)
    y2 = alpha * x2 + beta * y1 + scale * block.g(y1)
    agree([*block((x1, x2))], [y1, y2], 1e-15)
    agree([*block.inverse((y1, y2))], [x1, x2], 1e-14)


def test_bdia_draws_a_sign_for_each_sample_and_half_and_is_the_ordinary_network_in_evaluation():
    class Seen(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    block = ReversibleBlock(Seen(), Seen(), "bdia").double()
    torch.manual_seed(0)
    x1, x2 = torch.ones(400, 2, dtype=torch.float64), torch.full((400, 2), 3.0, dtype=torch.float64)
    y1, y2 = block((x1, x2))
    gamma = ((y1 - x2) / (x1 - x2))[:, 0]  # y1 = gamma x1 + (1 - gamma) x2
    assert set(gamma.tolist()) == {0.5, -0.5} and abs(gamma.mean()) < 0.1
    other = ((y2 - y1) / (x2 - y1))[:, 0]
    assert set(other.tolist()) == {0.5, -0.5} and 100 < (gamma == other).sum() < 300
    ordinary = ReversibleBlock(nn.Linear(2, 2), nn.Linear(2, 2), "bdia").double().eval()
    z = x2 + ordinary.f(x2)
    agree([*ordinary((x1, x2))], [z, z + ordinary.g(z)], 1e-15)


def test_couplings_by_name_and_number():
    assert find_coupling("momentum", gamma=0.75) == momentum(0.75) == Coupling(-0.75, 1.75, 0.25)
    assert find_coupling("additive") is find_coupling("additive")
    for name in COUPLINGS:
        assert ReversibleBlock(nn.Identity(), nn.Identity(), name).rule == find_coupling(name)
    with pytest.raises(CouplingError, match=r"'momntum' is not one of: additive, .* Did you mean 'momentum'"):
        ReversibleBlock(nn.Identity(), nn.Identity(), "momntum")
    with pytest.raises(CouplingError, match=r"its numbers are \['gamma'\]; received beta=1"):
        find_coupling("momentum", beta=1)
    for make in (lambda: Coupling(0, 1, 1), lambda: scaled(0), lambda: momentum(0), lambda: revdeq(1)):
        with pytest.raises(CouplingError, match=r"coupling\.alpha: the inverse divides by it"):
            make()
    for wrong in (math.nan, math.inf, "1", True, None):
        with pytest.raises(CouplingError, match=r"coupling\.beta: a finite number"):
            Coupling(1, wrong, 1)
    with pytest.raises(PrecisionError):  # As an unknown coupling always was.
        ReversibleBlock(nn.Identity(), nn.Identity(), "none")


def test_the_additive_coupling_is_a_plain_sum_to_the_last_bit():
    net = sequence("additive", drop=0.0)
    x1, x2 = numbers(5, WIDTH), numbers(5, WIDTH, seed=1)
    y1, y2 = x1, x2
    for block in net.units():
        y1 = y1 + block.f(y2)
        y2 = y2 + block.g(y1)
    found = net((x1, x2))
    assert torch.equal(found[0], y1) and torch.equal(found[1], y2)


# Gradients


@pytest.mark.parametrize("with_context", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("coupling", [*COUPLINGS, Coupling(2, 0.5, -1)], ids=str)
def test_gradients_equal_the_stored_twins(coupling, strategy, with_context):
    x, context = numbers(4, 2 * WIDTH), numbers(8, seed=2) if with_context else None
    for depth in (1, 4):
        exact = step(sequence(coupling, depth, "store"), x, context)
        agree(step(sequence(coupling, depth, strategy), x, context), exact)


@pytest.mark.covering
@pytest.mark.parametrize("with_context", [False, True])
@pytest.mark.parametrize("strategy", ["reverse", "checkpoint", "store"])
@pytest.mark.parametrize("coupling", FIXED)
def test_gradients_of_compiled_networks(coupling, strategy, with_context):
    x, context = numbers(4, 2 * WIDTH), numbers(8, seed=2) if with_context else None
    exact = step(sequence(coupling, strategy="store", drop=0.0), x, context)
    agree(step(compiled(sequence(coupling, strategy=strategy, drop=0.0)), x, context), exact)


@pytest.mark.parametrize("strategy", ["reverse", *wide("store", "checkpoint")])
def test_bdia_compiled_draws_the_same_signs_again(strategy):
    """It draws other numbers than the eager network, so the gradient is compared with differences."""
    net, x = compiled(sequence("bdia", strategy=strategy)), numbers(4, 2 * WIDTH)
    gradient, h = step(net, x)[1], 1e-5
    direction = numbers(4, 2 * WIDTH, seed=9).detach()
    ends = []
    for sign in (1, -1):
        moved = (x.detach() + sign * h * direction).requires_grad_(True)
        torch.manual_seed(3)
        ends.append(loss_of(net(moved)).detach())
    expected = (ends[0] - ends[1]) / (2 * h)
    assert abs((gradient * direction).sum() - expected) <= 1e-7 * abs(expected)


def test_bdia_in_evaluation_keeps_its_inputs_and_is_differentiated_right():
    net, x = sequence("bdia").eval(), numbers(4, 2 * WIDTH)
    assert net.modes == ("checkpoint",) * 3
    agree(step(net, x), step(sequence("bdia", strategy="store").eval(), x))
    for call in (net.inverse, net.train().inverse):
        with pytest.raises(CouplingError, match="draws its numbers in a training step"):
            call(x)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_guarantee(coupling):
    block = ReversibleBlock(Residual(0.3), nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), coupling)
    report = check_reversible(block, torch.randn(3, 2 * WIDTH))
    assert report["gradients"].outcome == report["flat_memory"].outcome == "holds"
    assert report["inverse"].outcome == ("not applicable" if coupling == "bdia" else "holds")


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_bytes_do_not_grow_with_depth_and_are_predicted(coupling):
    shallow, deep = (bytes_of_a_step(sequence(coupling, depth), (numbers(4, 2 * WIDTH),)) for depth in (2, 5))
    assert shallow == deep
    batch = numbers(4, 2 * WIDTH).detach(), torch.zeros(4, 2 * WIDTH, dtype=torch.float64)
    for strategy in ("store", "reverse"):
        net = sequence(coupling, strategy=strategy)
        loss = nn.functional.mse_loss
        assert predict_memory(net, batch, loss=loss) == peak_memory(net, batch, loss=loss)


def test_equal_couplings_share_a_compiled_graph():
    def block(gamma):
        return ReversibleBlock(nn.Linear(2, 2), nn.Linear(2, 2), momentum(gamma))

    assert signature(block(0.5)) == signature(block(0.5)) != signature(block(0.25))
    net = sequence(momentum(0.5), drop=0.0)
    twin, graph, x = copy.deepcopy(net), compiled(net), numbers(4, 2 * WIDTH)
    step(graph, x)
    for other in (net, twin):
        for unit in other.units():
            unit.rule = scaled(0.5)
    agree(step(graph, x), step(put(twin, "store"), x))


# Errors of the inverse


def test_predicted_growth_of_errors_in_the_inverse():
    assert sequence("additive").blocks[0].rule.inverse_error_growth(50) == pytest.approx(1)
    assert midpoint().inverse_error_growth(50) == pytest.approx(1)
    assert scaled(0.5).inverse_error_growth(10) == pytest.approx(2**10)
    assert revdeq(0.25).inverse_error_growth(10) == pytest.approx(0.75**-10)
    for rule, alpha in ((momentum(0.5), 0.5), (damped_midpoint(0.5), 0.5), (bdia(0.5), 0.5)):
        ratio = rule.inverse_error_growth(12) / rule.inverse_error_growth(8)
        assert ratio == pytest.approx(alpha**-8, rel=1e-3)
    ratio = leapfrog().inverse_error_growth(400) / leapfrog().inverse_error_growth(100)
    assert ratio == pytest.approx(4, rel=0.01)
    assert bdia(0.5).inverse_error_growth(5_000) == math.inf


def test_predicted_growth_of_unlike_blocks_is_the_norm_of_the_product_of_their_inverses():
    rules = [momentum(0.5), leapfrog(), scaled(0.25), Coupling(2, -0.5)]
    whole = torch.eye(2, dtype=torch.float64)
    for rule in rules:
        half = torch.tensor([[0, 1], [rule.alpha, rule.beta]], dtype=torch.float64)
        whole = half @ half @ whole
    expected = torch.linalg.matrix_norm(torch.linalg.inv(whole), 2).item()
    assert inverse_error_growth(rules) == pytest.approx(expected, rel=1e-9)
    assert inverse_error_growth([]) == 1


@pytest.mark.parametrize(
    "coupling",
    ["additive", scaled(0.5), momentum(0.5), damped_midpoint(0.5), bdia(0.5), revdeq(0.5)],
    ids=str,
)
def test_measured_errors_grow_as_predicted(coupling):
    """In float32, with small F and G, over 6 more blocks; within a factor of 4 of the prediction."""
    target = torch.zeros(64, 2 * WIDTH)

    rule = sequence(coupling, 1).blocks[0].rule
    # An offset keeps streams up that would shrink with alpha: errors are relative to them.
    offset = 1.0 if rule.beta == 0 and rule.alpha != 1 else 0.0

    def error(depth):
        net = sequence(coupling, depth, drop=0.0, size=0.01, offset=offset).float()
        batch = numbers(64, 2 * WIDTH).detach().float(), target
        return fidelity(net, batch, loss=nn.functional.mse_loss).end_to_end_rel_error

    predicted = rule.inverse_error_growth(10) / rule.inverse_error_growth(4)
    measured = error(10) / error(4)
    assert predicted / 4 < measured < predicted * 4


# Exact


@pytest.mark.parametrize("strategy", ["reverse", "budget"])
@pytest.mark.parametrize(
    "coupling", [midpoint(0.3), leapfrog(0.2), Coupling(-1, 0, 0.7), Coupling(1, 1, 0.1)]
)
def test_exact_to_the_last_bit_where_alpha_is_one_and_beta_whole(coupling, strategy):
    torch.manual_seed(0)
    blocks = [ReversibleBlock(Residual(0.0, 0.1), Residual(0.0, 0.1), coupling, exact=True) for _ in range(4)]
    net = ReversibleSequence(blocks)
    batch = torch.randn(32, 2 * WIDTH), torch.zeros(32, 2 * WIDTH)
    found = fidelity(net, batch, loss=nn.functional.mse_loss)
    assert found.reconstruction_rel_error == 0
    # Autograd adds up the gradients of a stream that is read twice in another order.
    assert found.gradient_rel_error <= (0 if coupling.beta == 0 else 1e-5)
    assert 0 < net.range.value < net.range.limit
    with torch.no_grad():
        once = net.inverse(net(batch[0]))
        assert torch.equal(net.inverse(net(once)), once)
    policy = Precision(coupling="exact", grid_bits=12)
    plain = ReversibleSequence(
        [ReversibleBlock(b.f, b.g, coupling) for b in blocks], "budget" if strategy == "budget" else "reverse"
    )
    plain.set_precision(policy)
    assert fidelity(plain, batch, loss=nn.functional.mse_loss).reconstruction_rel_error == 0


def test_sums_within_a_coupling_count_for_the_range():
    """The leapfrog adds up 3 streams: they stay below a quarter of what the grid holds, or it is said."""
    torch.manual_seed(0)
    block = ReversibleBlock(nn.Identity(), nn.Identity(), leapfrog(0.5), exact=True)
    assert ReversibleSequence([block])((torch.full((2, 2), 1.0), torch.full((2, 2), 2.0)))
    with pytest.raises(RangeError, match="holds values below 256"):
        block((torch.full((2, 2), 300.0), torch.full((2, 2), 301.0)))
    with pytest.raises(RangeError, match="holds values below 256"):
        ReversibleSequence([block])((torch.full((2, 2), 300.0), torch.full((2, 2), 301.0)))


@pytest.mark.parametrize("coupling", [scaled(0.5**0.5), Coupling(1 / 300), Coupling(-0.123456, 1.2)])
def test_exact_is_refused_with_the_reason_where_alpha_is_no_ratio(coupling):
    reason = "alpha = .* is no ratio of whole numbers up to 256"
    with pytest.raises(CouplingError, match=rf"an exact inverse needs an alpha whose division.*{reason}"):
        ReversibleBlock(nn.Identity(), nn.Identity(), coupling, exact=True)
    net = ReversibleSequence([ReversibleBlock(nn.Identity(), nn.Identity(), coupling)])
    net.set_precision(Precision(coupling="exact"))
    with pytest.raises(CouplingError, match=reason):
        net(torch.randn(2, 4))


def exact_sequence(coupling, strategy="reverse", depth=4, drop=0.2):
    torch.manual_seed(0)
    blocks = [
        ReversibleBlock(Residual(drop, 0.1), Residual(drop, 0.1), coupling, exact=True) for _ in range(depth)
    ]
    return put(ReversibleSequence(blocks).double(), strategy)


@pytest.mark.parametrize(
    ("coupling", "strategy"),
    [
        *((name, "reverse") for name in ("momentum", "bdia", "damped_midpoint", "revdeq", scaled(0.1))),
        *((rule, "budget") for rule in ("bdia", Coupling(1, 0.5), Coupling(1.5, -0.5, 0.3))),
        ("momentum", "anchors"),
    ],
    ids=str,
)
def test_exact_to_the_last_bit_with_side_information(coupling, strategy):
    """Rebuilt pairs are the stored ones, with dropout and context; gradients are those of the stored twin."""
    net, twin = exact_sequence(coupling, strategy), exact_sequence(coupling, "store")
    x, context = numbers(5, 2 * WIDTH), numbers(5, 8, seed=1)
    agree(step(net, x, context), step(twin, x, context))
    target = torch.zeros(5, 2 * WIDTH)
    found = fidelity(net.float(), (x.detach().float(), target), loss=nn.functional.mse_loss)
    assert found.reconstruction_rel_error == 0
    assert 0 < net.range.value < net.range.limit


@pytest.mark.parametrize("coupling", ["momentum", "bdia", scaled(0.1)], ids=str)
def test_side_information_is_counted_and_is_what_is_saved_beyond_the_output(coupling):
    batch = torch.randn(7, 2 * WIDTH, dtype=torch.float64), torch.zeros(7, 2 * WIDTH, dtype=torch.float64)

    def use(coupling, depth, measure=peak_memory):
        return measure(exact_sequence(coupling, depth=depth, drop=0.0), batch, loss=nn.functional.mse_loss)

    bits = (coupling if isinstance(coupling, Coupling) else find_coupling(coupling)).side_bits
    measured, none = use(coupling, 3), use("leapfrog", 3)
    assert measured == use(coupling, 3, predict_memory)
    assert measured.side_bytes == 3 * 2 * math.ceil(7 * WIDTH * bits / 8) and none.side_bytes == 0
    assert measured.saved_bytes - none.saved_bytes == measured.side_bytes


@pytest.mark.parametrize("alpha", [0.5, -0.9, 1 / 3, 0.99, 0.1, 1 / 200, 1.0, 1.5, -2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_undone_over_the_whole_range(alpha, dtype):
    significand = 24 if dtype == torch.float32 else 53
    largest = 2**significand / max(1, abs(alpha))
    top = torch.arange(3000, dtype=torch.float64)
    x = torch.cat([top - 1500, largest - 3001 + top, 3001 - largest - top]).floor().to(dtype)
    ratio, z = ratio_of(alpha), torch.zeros_like(x)
    three = (alpha, 0.5, 1.0)
    y = combine_kept(three, ratio, 0, x, z, z)
    if dtype == torch.float32:
        assert (y.double() - alpha * x.double()).abs().max() <= 1, "rounded down by less than a step"
    assert torch.equal(separate_kept(three, ratio, 0, y, z, z, dropped(x, ratio, 0)), x)


def test_side_information_that_is_left_out_is_seen():
    """The suite can fail: without the bits, another stream comes back."""
    x, ratio = torch.arange(-9.0, 9.0), ratio_of(0.9)
    y = combine_kept((0.9, 0.0, 1.0), ratio, 0, x, torch.zeros(18), torch.zeros(18))
    assert not torch.equal(separate_kept((0.9, 0.0, 1.0), ratio, 0, y, x * 0, x * 0, None), x)
    block = ReversibleBlock(nn.Identity(), nn.Identity(), "momentum", exact=True)
    with pytest.raises(CouplingError, match="side information, which a training step alone keeps"):
        block.inverse(block((x.view(2, 9), x.view(2, 9))))
