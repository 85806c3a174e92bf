"""Networks that people have, made reversible: the same outputs, right gradients, flat memory, and back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from revmodels.coupling.linear import bdia, momentum
from revmodels.errors import NotReversibleError, ReplayError
from revmodels.measure import fidelity
from revmodels.models.retrofit import Reversible, retrofit, unretrofit
from revmodels.sequence import ReversibleSequence
from revmodels.testing.instruments import memory as bytes_of_a_step


def gpt2(layers=4, drop=0.0):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=layers, n_head=2, use_cache=False,
        resid_pdrop=drop, embd_pdrop=drop, attn_pdrop=drop,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    return model, torch.arange(24).reshape(2, 12)


def torchvision_vit(layers=3):
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=16, patch_size=8, num_layers=layers, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    )
    nn.init.normal_(model.heads.head.weight)  # zeros, as torchvision makes it
    return model, torch.randn(2, 3, 16, 16)


def timm_vit(layers=3):
    timm = pytest.importorskip("timm")
    model = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=layers, num_heads=2, num_classes=5, init_values=0.5
    )
    return model, torch.randn(2, 3, 16, 16)


class Own(nn.Module):
    """A residual network of one's own, whose layers are functions in a row."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh())

        def forward(self, x):
            x = x + self.a(x)
            return x + self.b(x)

    def __init__(self, layers=3):
        super().__init__()
        self.body = nn.Sequential(*[Own.Layer() for _ in range(layers)])

    def forward(self, x):
        return self.body(x)


OWN = {"layers": "body", "halves": lambda layer: (layer.a, layer.b)}
NETWORKS = {
    "gpt2": (gpt2, {}),
    "torchvision": (torchvision_vit, {}),
    "timm": (timm_vit, {}),
    "own": (lambda layers=3: (Own(layers), torch.randn(4, 6)), OWN),
}


def made(name, **sizes):
    torch.manual_seed(0)
    make, how = NETWORKS[name]
    model, inputs = make(**sizes)
    model = model.double()
    return model, inputs if inputs.dtype == torch.int64 else inputs.double(), how


def outputs(model, inputs):
    out = model(inputs)
    return out if isinstance(out, torch.Tensor) else out.logits


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_outputs_are_the_originals_and_so_are_the_last(name):
    model, inputs, how = made(name)
    model.eval()
    before, state = outputs(model, inputs), copy.deepcopy(model.state_dict())
    weights = {id(p) for p in model.parameters()}
    assert retrofit(model, **how) is model
    assert {id(p) for p in model.parameters()} == weights
    torch.testing.assert_close(outputs(model, inputs), before, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(outputs(model, inputs), before, rtol=1e-12, atol=1e-12)
    unretrofit(model)
    after = model.state_dict()
    assert list(after) == list(state) and all(torch.equal(after[key], state[key]) for key in state)
    assert torch.equal(outputs(model, inputs), before)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_has_the_stored_twins_gradients(name):
    def gradients(strategy):
        model, inputs, how = made(name)
        retrofit(model.train(), strategy=strategy, **how)
        torch.manual_seed(3)
        out = outputs(model, inputs)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        (out * weights).sum().backward()
        return {n: p.grad for n, p in model.named_parameters()}

    exact, found = gradients("store"), gradients("reverse")
    largest = max(g.norm() for g in exact.values())
    for n, g in exact.items():
        assert (found[n] - g).norm() <= 1e-11 * g.norm().clamp_min(1e-3 * largest), n


def test_dropout_of_a_language_model_replays():
    def gradient(strategy):
        torch.manual_seed(0)
        model, tokens = gpt2(drop=0.1)
        retrofit(model.double().train(), strategy=strategy)
        torch.manual_seed(3)
        model(tokens, labels=tokens, attention_mask=torch.ones_like(tokens)).loss.backward()
        return model.transformer.wte.weight.grad

    exact = gradient("store")
    assert (gradient("reverse") - exact).norm() <= 1e-12 * exact.norm()


def test_the_mean_of_training_steps_is_the_evaluation_to_first_order():
    model, inputs, how = made("own", layers=1)
    retrofit(model, **how)
    exact = model.eval()(inputs)
    model.train()
    mean = torch.stack([model(inputs) for _ in range(4000)]).mean(0)
    once = (model(inputs) - exact).norm()
    assert (mean - exact).norm() < 0.3 * once


def test_memory_does_not_grow_with_layers_between_anchors():
    def net(layers):
        torch.manual_seed(0)
        return retrofit(Own(layers).double(), **OWN)

    x = torch.randn(64, 6, dtype=torch.float64)
    (held, peak), (held_, peak_) = (bytes_of_a_step(net(n), (x,)) for n in (2, 4))
    assert held == held_ and peak == peak_
    assert bytes_of_a_step(Own(4).double(), (x,))[0] > 2 * held


def test_deep_networks_have_anchors_that_bound_the_growth_of_errors():
    def body(layers, coupling=None):
        model = retrofit(Own(layers), coupling=coupling, **OWN)
        return next(m for m in model.modules() if isinstance(m, ReversibleSequence))

    assert body(4).anchor_every is None
    assert body(12).anchor_every == 4 and sum(body(12).train().keeps_input) == 2
    assert body(12, bdia(0.25)).anchor_every == 2
    model, inputs, how = made("own", layers=12)
    retrofit(model.float(), **how)
    found = fidelity(model, (inputs.float(), torch.zeros(4, 6)), loss=F.mse_loss)
    assert found.reconstruction_rel_error < 1e-4


def test_generation_with_a_cache_and_training_with_one():
    torch.manual_seed(0)
    model, tokens = gpt2()
    model.eval()
    expected = model.generate(
        tokens[:, :4], max_new_tokens=4, do_sample=False, use_cache=True, pad_token_id=0
    )
    retrofit(model)
    found = model.generate(tokens[:, :4], max_new_tokens=4, do_sample=False, use_cache=True, pad_token_id=0)
    assert torch.equal(found, expected)
    with torch.no_grad():
        first = model(tokens[:, :4], use_cache=True)
    cache = next(v for v in first.values() if hasattr(v, "get_seq_length"))
    from transformers.models.gpt2.modeling_gpt2 import GPT2Model  # the name of the argument has changed

    name = "cache" if "cache" in GPT2Model.forward.__code__.co_varnames else "past_key_values"
    with pytest.raises(ReplayError, match="a cache of keys and values"):
        model.train()(tokens[:, 4:5], **{name: cache})


def test_what_cannot_be_retrofitted():
    with pytest.raises(NotReversibleError, match=r"Own has no layers of a kind that is known .*GPT2Block"):
        retrofit(Own())
    with pytest.raises(NotReversibleError, match="holds no layers that"):
        unretrofit(Own())
    model = retrofit(Own(), **OWN)
    with pytest.raises(NotReversibleError, match="are reversible already"):
        retrofit(model, **OWN)
    assert isinstance(model.body[0], Reversible)
    with pytest.raises(NotReversibleError, match="only BDIA computes in evaluation mode"):
        retrofit(Own(), coupling=momentum(), **OWN)
