import itertools
import math

import pytest
import torch

import revmodels
from revmodels import create_model
from study.identity import trial_id
from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings
from study.train.length import Length
from study.train.optim import learning_rate, make_optimizer, parameter_groups


def rates(steps_per_epoch=10, **changes):
    train = TrainSettings(epochs=10, learning_rate=1.0, **changes)
    length = Length(steps=10 * steps_per_epoch, steps_per_epoch=steps_per_epoch, every=steps_per_epoch)
    return [learning_rate(train, step, length) for step in range(100)]


def test_only_convolution_and_linear_weights_decay():
    model = revmodels.create_model("revnet38", num_classes=10, width=0.25)
    decayed, others = parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and others["weight_decay"] == 0.0
    assert all(p.dim() in (2, 4) for p in decayed["params"])
    assert all(p.dim() == 1 for p in others["params"])
    both = [id(p) for p in (*decayed["params"], *others["params"])]
    assert sorted(both) == sorted(names)


def test_frozen_parameters_are_left_out():
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    decayed, others = parameter_groups(model, 0.1)
    assert (len(decayed["params"]), len(others["params"])) == (1, 0)


def test_optimizers():
    model = torch.nn.Linear(2, 2)
    sgd = make_optimizer(model, TrainSettings(momentum=0.7, learning_rate=0.3))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["lr"]) == (0.7, 0.3)
    assert isinstance(make_optimizer(model, TrainSettings(optimizer="adamw")), torch.optim.AdamW)


def test_step_schedule_is_the_papers():
    assert rates(schedule="step") == [1.0] * 50 + [0.1] * 25 + [0.01] * 25


def test_cosine_falls_from_the_peak_to_almost_nothing():
    found = rates(schedule="cosine")
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert found[50] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_constant_schedule():
    assert set(rates(schedule="constant")) == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_warmup_is_linear_and_reaches_the_peak(schedule):
    found = rates(schedule=schedule, warmup_epochs=2.0)
    assert found[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert found[20] == 1.0
    assert max(found) == 1.0


def test_a_line_falls_to_nothing():
    found = rates(schedule="linear", warmup_steps=10)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10] == 1.0 and found[-1] == pytest.approx(1 / 90)
    assert [a - b for a, b in itertools.pairwise(found[10:])] == pytest.approx([1 / 90] * 89)


def test_warmup_stable_decay():
    found = rates(schedule="wsd", warmup_steps=5, decay_fraction=0.25)
    assert found[5:76] == [1.0] * 71
    assert found[76:] == pytest.approx([(100 - step) / 25 for step in range(76, 100)])
    assert rates(schedule="wsd", decay_fraction=1.0)[0] == 1.0


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    model = revmodels.create_model("gpt_100k", vocab_size=32, context_length=8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, TrainSettings(optimizer="muon", learning_rate=0.01, weight_decay=0.0))
    muon, adamw = optimizer._optimizers
    names = {id(p): name for name, p in model.named_parameters()}
    ours = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    theirs = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert ours | theirs == set(before) and not ours & theirs
    assert {"head.output.weight", "stem.weight"} <= theirs
    assert all(before[name].dim() == 2 and name.startswith("body") for name in ours)
    tokens = torch.randint(0, 32, (4, 8))
    model(tokens, tokens).mean.backward()
    optimizer.step()
    assert all((p != before[name]).any() for name, p in model.named_parameters())
    again = make_optimizer(model, TrainSettings(optimizer="muon", learning_rate=0.01, weight_decay=0.0))
    again.load_state_dict(optimizer.state_dict())
    assert len(again.state) == len(before)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_fused_optimizer_makes_the_same_steps(optimizer):
    start = torch.randn(5, 3, dtype=torch.float64)
    ends = []
    for fused in (False, True):
        layer = torch.nn.Linear(3, 5, bias=False).double()
        layer.weight.data.copy_(start)
        train = TrainSettings(optimizer=optimizer, learning_rate=0.1, fused=fused)
        steps = make_optimizer(layer, train)
        for _ in range(3):
            steps.zero_grad()
            layer(torch.eye(3, dtype=torch.float64)).square().sum().backward()
            steps.step()
        ends.append(layer.weight.detach())
    assert torch.allclose(*ends, rtol=1e-12, atol=0)


def test_nesterov_looks_ahead_along_the_momentum():
    weight, gradients = torch.nn.Linear(1, 1, bias=False).double(), (1.0, -0.5, 2.0)
    start, velocity = weight.weight.item(), 0.0
    train = TrainSettings(momentum=0.9, nesterov=True, learning_rate=0.1, weight_decay=0.0)
    optimizer, expected = make_optimizer(weight, train), start
    for gradient in gradients:
        weight.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        velocity = 0.9 * velocity + gradient
        expected -= 0.1 * (gradient + 0.9 * velocity)
    assert weight.weight.item() == pytest.approx(expected, rel=1e-12)
    assert not make_optimizer(weight, TrainSettings(momentum=0.0, nesterov=True)).defaults["nesterov"]


def test_nesterov_is_part_of_the_identity_where_it_is_used():
    def identity(**train):
        return trial_id(TrialSettings(train=TrainSettings(**train)))

    assert identity(nesterov=True) != identity() == identity(nesterov=False)
    assert identity(optimizer="adamw", nesterov=True) == identity(optimizer="adamw")


def test_a_parametrization_gives_each_group_its_share_of_the_rate():
    model = create_model("revgpt_410m", width=0.5, depth=2, vocab_size=8, tied=False, parametrization="mup")
    copies = [torch.nn.Parameter(p.detach().clone()) for p in model.parameters()]
    train = TrainSettings(optimizer="adamw", learning_rate=0.1, weight_decay=0.2)
    own, copied = make_optimizer(model, train), make_optimizer(model, train, copies)
    for optimizer, parameters in ((own, list(model.parameters())), (copied, copies)):
        shares = {id(p): g["lr_multiplier"] for g in optimizer.param_groups for p in g["params"]}
        decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        for (name, _), p in zip(model.named_parameters(), parameters, strict=True):
            hidden = name.startswith("body.") and p.dim() == 2
            assert shares[id(p)] == (0.5 if hidden else 1.0), name
            assert decays[id(p)] == (0.4 if hidden else 0.2 if name == "head.output.weight" else 0.0), name
