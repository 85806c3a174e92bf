"""Fidelity: what it reports is right, also where the answer is known, and it leaves no trace."""

import math

import pytest
import torch
from torch import nn

from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model
from revmodels.errors import NotReversibleError
from revmodels.measure import fidelity
from revmodels.measure.fidelity import angle_deg, rel_error


def measured(precision, depth=38):
    torch.manual_seed(0)
    model = create_model("revnet38", num_classes=10, depth=depth, width=0.5, precision=precision)
    return fidelity(model, (torch.randn(16, 3, 8, 8), torch.randint(10, (16,))))


def test_error_falls_with_precision():
    fp64 = measured(Precision(compute="fp64", stream="fp64"))
    fp32 = measured(Precision())
    bf16 = measured(Precision(compute="bf16", stream="bf16"))
    assert 0 < fp64.reconstruction_rel_error < 1e-13
    assert 1e-9 < fp32.reconstruction_rel_error < 1e-4
    assert 1e-4 < bf16.reconstruction_rel_error < 1
    assert fp64.gradient_rel_error < fp32.gradient_rel_error < bf16.gradient_rel_error
    assert fp64.gradient_angle_deg < fp32.gradient_angle_deg < bf16.gradient_angle_deg


def test_blocks_carry_names_and_the_worst_is_theirs():
    result = measured(Precision())
    assert [b.index for b in result.blocks] == list(range(9))
    assert result.blocks[4].name == "body.blocks.4"
    stored = [b.index for b in result.blocks if b.reconstruction_rel_error is None]
    assert stored == [0, 3, 6]
    rebuilt = [b.reconstruction_rel_error for b in result.blocks if b.reconstruction_rel_error is not None]
    assert result.reconstruction_rel_error == max(rebuilt)
    assert result.gradient_rel_error >= max(b.gradient_rel_error for b in result.blocks)


def test_reconstruction_error_equals_the_public_inverse():
    torch.manual_seed(0)
    blocks = [ReversibleBlock(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(6)]
    net = ReversibleSequence(blocks)
    x = torch.randn(32, 16)
    with torch.no_grad():
        expected = rel_error(net.inverse(net(x)), x)
    result = fidelity(net, (x, torch.randint(16, (32,))))
    assert result.blocks[0].reconstruction_rel_error == pytest.approx(expected, rel=1e-6)


def test_a_sabotaged_inverse_is_seen():
    class Drifting(nn.Module):
        """Gives another value every time it is called."""

        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    net = ReversibleSequence([ReversibleBlock(Drifting(), nn.Linear(4, 4)) for _ in range(2)])
    assert fidelity(net, (torch.randn(8, 8), torch.randint(8, (8,)))).reconstruction_rel_error > 0.1


def test_dropout_is_the_same_in_both_passes():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh())  # noqa: E731
    net = ReversibleSequence([ReversibleBlock(make(), make()) for _ in range(4)]).double()
    result = fidelity(net, (torch.randn(32, 16, dtype=torch.float64), torch.randint(16, (32,))))
    assert result.gradient_rel_error < 1e-12


def test_nothing_is_left_behind():
    torch.manual_seed(0)
    model = create_model("revnet38", num_classes=10, depth=26, width=0.25, strategy="checkpoint")
    batch = torch.randn(8, 3, 8, 8), torch.randint(10, (8,))
    model(batch[0]).sum().backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    fidelity(model, batch)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    assert model.strategy == "checkpoint"
    assert model.body.observer is None


def test_a_network_that_rebuilds_nothing_is_refused():
    with pytest.raises(NotReversibleError, match="ResNet holds no ReversibleSequence"):
        fidelity(create_model("resnet32", num_classes=10), (torch.randn(2, 3, 8, 8), torch.zeros(2).long()))


def test_angles_where_the_answer_is_known():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert angle_deg(x, y) == pytest.approx(90)
    assert angle_deg(x, -x) == pytest.approx(180)
    assert angle_deg(x, 3 * x) == 0
    tiny = torch.tensor([1.0, 1e-12], dtype=torch.float64)
    assert angle_deg(x.double(), tiny) == pytest.approx(math.degrees(1e-12), rel=1e-6)
    assert angle_deg(x * 0, x * 0) == 0
    assert rel_error(torch.ones(2), torch.zeros(2)) == math.inf


def test_streams_by_themselves_and_end_to_end():
    result = measured(Precision())
    rebuilt = [b for b in result.blocks if b.reconstruction_rel_error is not None]
    assert result.end_to_end_rel_error == rebuilt[0].reconstruction_rel_error
    for block in rebuilt:
        low, high = sorted(block.stream_rel_errors)
        assert low <= block.reconstruction_rel_error <= high
    assert all(b.stream_rel_errors is None for b in result.blocks if b.reconstruction_rel_error is None)


@pytest.mark.parametrize("precision", [Precision(), Precision(compute="bf16", stream="bf16")])
def test_float64_reference_tells_rounding_from_rebuilding(precision):
    torch.manual_seed(0)
    model = create_model("revnet38", num_classes=10, width=0.5, precision=precision)
    batch = torch.randn(16, 3, 8, 8), torch.randint(10, (16,))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    result = fidelity(model, batch, reference=True)
    assert model.precision == precision
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    for block in result.blocks:
        assert 0 < block.stored_reference_rel_error < 2
        assert block.reference_rel_error > 0
        for cosine, angle in (
            (block.reference_cosine, block.reference_angle_deg),
            (block.stored_reference_cosine, block.stored_reference_angle_deg),
        ):
            assert 0 < angle < 180
            assert cosine == pytest.approx(math.cos(math.radians(angle)))
    assert fidelity(model, batch).blocks[0].reference_angle_deg is None


def test_every_parameter_belongs_to_one_group():
    torch.manual_seed(0)
    model = create_model("revnet38", num_classes=10, width=0.5)
    result = fidelity(model, (torch.randn(16, 3, 8, 8), torch.randint(10, (16,))))
    assert [part.name for part in result.others] == ["stem", "head"]
    groups = (*result.blocks, *result.others)
    assert max(group.gradient_rel_error for group in groups) == result.gradient_rel_error
    assert result.others[1].gradient_rel_error == 0, "no rebuilt activation reaches the head's gradient"
    assert result.others[0].gradient_angle_deg > 0


def test_reference_of_a_float64_network_is_itself():
    torch.manual_seed(0)
    model = create_model(
        "revnet38", num_classes=10, width=0.5, precision=Precision(compute="fp64", stream="fp64")
    )
    batch = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(10, (4,))
    blocks = fidelity(model, batch, reference=True).blocks
    assert all(b.stored_reference_rel_error == 0 for b in blocks)
    assert all(b.reference_rel_error < 1e-8 for b in blocks)


def test_the_float64_reference_of_a_network_with_a_policy_of_its_own_warns_of_nothing(recwarn):
    precision = Precision(compute="bf16")
    model = create_model("revnet38", num_classes=4, width=0.25, precision=precision)
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(4, (4,))
    found = fidelity(model, (images, labels), reference=True)
    assert [str(w.message) for w in recwarn.list if w.category is UserWarning] == []
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(block.reference_rel_error is not None for block in found.blocks)
