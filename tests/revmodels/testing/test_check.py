"""`check_reversible`: passes what is right, catches what is wrong, and leaves no trace."""

import copy

import pytest
import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence, create_model
from revmodels.errors import NotReversibleError, ReversibilityError
from revmodels.testing.check import check_reversible
from revmodels.testing.guarantees import GUARANTEES
from revmodels.testing.network_under_test import Figure
from tests.revmodels import broken
from tests.revmodels.blocks import CHANNELS, KINDS, make_input, split_dim

HALVES = tuple(torch.randn(2, 4, 5, CHANNELS, generator=torch.Generator().manual_seed(0)))


def block(f=broken.Linear, g=broken.Linear, kind=ReversibleBlock):
    return kind(f(), g(), split_dim=2)


def sequence(kind=ReversibleSequence, make=KINDS["mlp"]):
    return kind([block(make, make) for _ in range(3)], split_dim=2)


class Surrounded(nn.Module):
    """A sequence between two other layers."""

    def __init__(self, body):
        super().__init__()
        self.stem, self.body, self.head = broken.Linear(), body, broken.Linear()

    def forward(self, x1, x2):
        y1, y2 = self.body(self.stem(x1), x2)
        return self.head(y1), y2


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_keep_every_guarantee(kind):
    torch.manual_seed(0)
    report = check_reversible(
        ReversibleBlock(KINDS[kind](), KINDS[kind](), split_dim=split_dim(kind)), make_input(kind)
    )
    assert [f.guarantee for f in report.findings] == list(GUARANTEES)
    inapplicable = {f.guarantee for f in report.findings if f.outcome == "not applicable"}
    assert inapplicable == (set() if kind.startswith("conv") else {"statistics_once"}) | (
        {"double_backward"} if kind == "attention" else set()
    )


def test_revnet_keeps_every_guarantee():
    torch.manual_seed(0)
    model = create_model("revnet38", num_classes=3, depth=26, width=0.25)
    report = check_reversible(model, torch.randn(3, 3, 8, 8), tolerance=1e-11)
    assert all(f.outcome == "holds" for f in report.findings)
    assert len(report["inverse"].figures) == 3, "one unit a stage is no stage entry"


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_kept(training):
    torch.manual_seed(0)
    net = ReversibleSequence([ReversibleBlock(KINDS["conv_basic"](), KINDS["conv_basic"]())])
    report = check_reversible(net.train(training), make_input("conv_basic"))
    assert report["statistics_once"].outcome == ("holds" if training else "not applicable")


BROKEN = {
    "gradients": lambda: block(f=broken.Drifting),
    "inputs_without_gradient": lambda: sequence(broken.NeedsInputGradient),
    "repeated_calls": lambda: block(f=broken.OneMaskDropout),
    "retained_graph": lambda: sequence(broken.OneShot),
    "autograd_grad": lambda: sequence(broken.SideEffects),
    "double_backward": lambda: Surrounded(sequence(broken.Naive)),
    "inverse": lambda: block(kind=broken.WrongInverse),
    "statistics_once": lambda: block(f=broken.HomemadeNorm),
    "random_state": lambda: sequence(broken.DrawsInBackward),
    "inputs_kept": lambda: block(f=broken.InPlace),
    "block_by_block": lambda: sequence(broken.Naive),
    "flat_memory": lambda: sequence(broken.Pretender),
    "one_extra_forward": lambda: block(kind=broken.Wasteful),
    "autocast": lambda: sequence(broken.Naive),
}
"""For every guarantee a network that breaks it."""


def test_every_guarantee_has_a_network_that_breaks_it():
    assert BROKEN.keys() == GUARANTEES.keys()


@pytest.mark.parametrize("guarantee", BROKEN)
def test_broken_guarantee_is_caught(guarantee):
    torch.manual_seed(0)
    module = BROKEN[guarantee]()
    with pytest.raises(ReversibilityError, match=rf"breaks 1 of 1 guarantees:\n  {guarantee}: "):
        check_reversible(module, HALVES, guarantees=[guarantee])


@pytest.mark.parametrize("guarantee", BROKEN)
def test_same_network_unbroken_passes(guarantee):
    torch.manual_seed(0)
    healthy = Surrounded(sequence()) if guarantee == "double_backward" else sequence()
    finding = check_reversible(healthy, HALVES, guarantees=[guarantee])[guarantee]
    assert finding.outcome == ("not applicable" if guarantee == "statistics_once" else "holds")


def test_message_names_guarantee_parameter_value_and_limit():
    torch.manual_seed(0)
    with pytest.raises(ReversibilityError) as caught:
        check_reversible(block(f=broken.Drifting), HALVES, guarantees=["gradients", "one_extra_forward"])
    message = str(caught.value)
    assert message.startswith("ReversibleBlock breaks 1 of 2 guarantees:\n  gradients: relative error of the")
    assert "gradient of blocks." in message
    assert ", at most 1e-12 allowed" in message
    assert "one_extra_forward" not in message
    assert "functions of their input alone" in message


def test_exception_inside_a_block_is_reported_with_the_guarantee():
    with pytest.raises(
        ReversibilityError, match="gradients: raised ResidualError: F and G must keep the shape"
    ):
        check_reversible(block(f=lambda: nn.Linear(CHANNELS, 1)), HALVES, guarantees=["gradients"])


def test_a_gradient_that_is_lost_is_an_infinite_error():
    with pytest.raises(ReversibilityError, match="inputs_without_gradient: raised RuntimeError"):
        check_reversible(sequence(broken.SideEffects), HALVES, guarantees=["inputs_without_gradient"])
    surrounded = Surrounded(sequence(broken.SideEffects))
    with pytest.raises(ReversibilityError, match=r"parameters of 40 that it does not reach: 36"):
        check_reversible(surrounded, HALVES, guarantees=["autograd_grad"])


def test_nan_is_no_small_error():
    assert not Figure("relative error", float("nan"), 1e-12).holds


def test_single_block_is_checked_as_a_chain():
    report = check_reversible(block(), HALVES, guarantees=["inverse"])
    names = [f.what.rsplit(" ", 1)[1] for f in report["inverse"].figures]
    assert names == ["blocks.0", "blocks.1", "blocks.2"]


def test_one_tensor_or_two():
    torch.manual_seed(0)
    names = ["gradients", "inputs_kept"]
    one = check_reversible(block(), torch.cat(HALVES, 2), guarantees=names)
    two = check_reversible(block(), HALVES, guarantees=names)
    assert len(two["gradients"].figures) == len(one["gradients"].figures) + 1


def test_module_used_twice():
    shared = block(KINDS["mlp"], KINDS["mlp"])
    report = check_reversible(ReversibleSequence([shared, block(), shared], split_dim=2), HALVES)
    assert not report.broken


def test_anchors():
    net = sequence()
    net.anchor_every = 2
    report = check_reversible(net, HALVES)
    assert not report.broken
    assert len(report["inverse"].figures) == 2, "the anchor stores its input"


def test_frozen_parameters():
    net = sequence()
    net.blocks[1].requires_grad_(False)
    net.blocks[0].g.requires_grad_(False)
    assert not check_reversible(net, HALVES).broken


def test_caller_sees_no_trace():
    torch.manual_seed(0)
    net = ReversibleSequence(
        [ReversibleBlock(KINDS["conv_basic"](), KINDS["conv_basic"]()) for _ in range(2)], "store"
    )
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before, x = copy.deepcopy(net), make_input("conv_basic").float()
    kept, state = x.clone(), torch.get_rng_state()
    check_reversible(net, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    assert net.strategy == "store"
    assert net.training
    for (name, a), b in zip(net.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(p.grad, torch.ones_like(p)) and not p._backward_hooks for p in net.parameters())
    assert all("forward" not in vars(m) for m in net.modules())


def test_nothing_reversible_is_an_error():
    with pytest.raises(NotReversibleError, match="Sequential holds no ReversibleSequence"):
        check_reversible(nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4))


def test_unknown_guarantee_is_an_error():
    with pytest.raises(ValueError, match="Did you mean 'gradients'"):
        check_reversible(block(), HALVES, guarantees=["gradient"])
    assert check_reversible(block(), HALVES, guarantees=[]).findings == ()


def test_report_is_a_table():
    torch.manual_seed(0)
    lines = str(check_reversible(block(), HALVES)).splitlines()
    assert len(lines) == len(GUARANTEES)
    assert lines[0].startswith("holds           gradients                ")
    assert "relative error of the gradient of " in lines[0]


def tokens_and_a_body():
    blocks = [ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4), split_dim=-1) for _ in range(2)]
    return nn.Sequential(nn.Embedding(11, 8), ReversibleSequence(blocks, split_dim=-1), nn.Linear(8, 11))


def test_a_model_on_token_ids():
    report = check_reversible(tokens_and_a_body(), torch.randint(11, (2, 5)))
    assert report["gradients"].outcome == report["repeated_calls"].outcome == "holds"


def test_a_model_without_parameters():
    report = check_reversible(ReversibleBlock(nn.Tanh(), nn.Tanh()), torch.randn(2, 8))
    assert not report.broken
    assert report["gradients"].outcome == "holds"
    assert report["autograd_grad"].outcome == "not applicable"
    assert report["autograd_grad"].detail == "it has no parameter to train"


def test_a_plain_function_is_refused_by_name():
    with pytest.raises(NotReversibleError, match=r"takes a module.* received function"):
        check_reversible(lambda x: x, torch.randn(2, 8))


OUTSIDE = torch.ones(CHANNELS, requires_grad=True)


class ReachesOutside(broken.Linear):
    """Multiplies by a tensor that it does not hold."""

    def forward(self, x):
        return super().forward(x) * OUTSIDE


class HoldsBufferWithGradient(broken.Linear):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(CHANNELS).requires_grad_())

    def forward(self, x):
        return super().forward(x) * self.scale


class HoldsList(broken.Linear):
    def __init__(self):
        super().__init__()
        self.held = [torch.ones(CHANNELS, requires_grad=True)]

    def forward(self, x):
        return super().forward(x) * self.held[0]


@pytest.mark.parametrize("make", [ReachesOutside, HoldsBufferWithGradient, HoldsList])
def test_a_gradient_is_never_lost_in_silence(make):
    """Either such a tensor gets its gradient, or the network is refused; today's answer is one of the two."""
    try:
        report = check_reversible(block(make), HALVES, guarantees=["gradients"])
    except ReversibilityError as error:
        assert "get none" in str(error) or "ReplayError" in str(error), str(error)
    else:
        (lost,) = [f for f in report["gradients"].figures if "get none" in f.what]
        assert lost.value == 0


@pytest.mark.parametrize(
    "make", [broken.KeepsLoss, broken.ListsLosses, broken.HidesLoss, broken.CollectsLosses]
)
def test_an_auxiliary_loss_is_refused_with_the_reason(make):
    torch.manual_seed(0)
    with pytest.raises(ReversibilityError) as caught:
        check_reversible(block(make), HALVES, guarantees=["gradients"])
    assert "F of unit 0, F of unit 1, F of unit 2 kept a tensor with its graph" in str(caught.value)
    assert "kept by detach()" in str(caught.value)


def test_a_branch_that_a_rounding_error_turns_is_refused_with_the_reason():
    """G is given again just what it was given, as F is 0, so that nothing shows in a plain step."""
    torch.manual_seed(0)
    inputs = [x.double().mul(1024).round().div(1024) for x in HALVES]
    net = ReversibleSequence([block(broken.Zero, broken.BranchesOnEquality)], split_dim=2)
    with pytest.raises(ReversibilityError, match="gradients: with rounding errors in what F and G are"):
        check_reversible(net, inputs, guarantees=["gradients"])


@pytest.mark.parametrize("make", [broken.BranchesOnLastBits, broken.BranchesOnAddress])
def test_a_branch_that_a_replay_does_not_repeat_is_refused(make):
    torch.manual_seed(0)
    with pytest.raises(ReversibilityError, match="gradients: "):
        check_reversible(block(make), HALVES)


def test_a_branch_that_both_passes_take_alike_is_no_fault():
    torch.manual_seed(0)
    assert not check_reversible(block(broken.BranchesOnSize), HALVES).broken
