"""Anchors: units that keep their input although they could be inverted."""

import pytest
import torch

from revmodels import Precision, create_model
from revmodels.errors import StrategyError
from revmodels.measure import fidelity, predict_memory
from tests.revmodels.blocks import assert_equal_gradients, gradients, make_input, make_sequence


@pytest.mark.parametrize("every", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("kind", ["conv_basic", "mlp_dropout", "attention"])
def test_gradients_equal_stored_mode(kind, every):
    torch.manual_seed(0)
    net, x = make_sequence(kind, 7), make_input(kind)
    net.anchor_every = every
    _, exact, buffers, _ = gradients(net, "store", x)
    _, found, buffers_, _ = gradients(net, "reverse", x)
    assert_equal_gradients(exact, found, 1e-12)
    assert all(torch.equal(buffers[n], buffers_[n]) for n in buffers)


def test_which_units_are_anchors():
    net = make_sequence("mlp", 7)
    net.anchor_every = 3
    assert [i for i, mode in enumerate(net.modes) if mode == "checkpoint"] == [3, 6]
    net.anchor_every = None
    assert set(net.modes) == {"reverse"}
    # Three stages of five units, whose first ones keep their input anyway.
    model = create_model("revnet38", num_classes=10, depth=62, width=0.25, anchor_every=2)
    assert [i for i, mode in enumerate(model.body.modes) if mode == "checkpoint"] == [
        *(0, 2, 4),
        *(5, 7, 9),
        *(10, 12, 14),
    ]


def test_errors_grow_between_anchors_and_not_over_the_depth():
    x, target = torch.randn(8, 3, 8, 8), torch.randint(10, (8,))

    def worst(every):
        torch.manual_seed(0)
        bf16 = Precision(compute="bf16", stream="bf16")
        model = create_model(
            "revnet38", num_classes=10, depth=134, width=0.25, precision=bf16, anchor_every=every
        )
        return fidelity(model, (x, target))

    without, every_2 = worst(None), worst(2)
    assert every_2.reconstruction_rel_error < without.reconstruction_rel_error / 2
    anchored = [b.index for b in every_2.blocks if b.reconstruction_rel_error is None]
    assert anchored == [i for i in range(33) if i % 11 % 2 == 0]


def test_an_anchor_costs_one_pair():
    def activation_bytes(every):
        def build():
            return create_model("revnet38", num_classes=10, depth=206, width=0.25, anchor_every=every)

        return predict_memory(
            build, (torch.empty(8, 3, 16, 16), torch.empty(8, dtype=torch.long))
        ).activation_bytes

    pairs = [8 * c * side * side * 4 for c, side in ((8, 16), (16, 8), (32, 4))]
    added = activation_bytes(4) - activation_bytes(None)
    # Sixteen anchors and three entries; at the peak those of the later stages may already be gone.
    assert 4 * pairs[0] <= added <= 4 * sum(pairs)


@pytest.mark.parametrize("every", [0, -1, 2.0, True, "4"])
def test_distance_is_a_whole_number(every):
    with pytest.raises(StrategyError, match="anchor_every: a whole number of units of at least 1"):
        create_model("revnet38", num_classes=10, anchor_every=every)


def test_a_budget_or_a_resnet_has_no_anchors():
    net = make_sequence("mlp", 3)
    net.anchor_every = 2
    with pytest.raises(StrategyError, match="'budget' chooses by itself"):
        net.strategy = "budget"
    assert net.strategy == "reverse"
    with pytest.raises(StrategyError, match="resnet32 rebuilds nothing"):
        create_model("resnet32", num_classes=10, anchor_every=2)
