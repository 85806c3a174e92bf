"""Recursive checkpointing: the stored network's numbers, in memory that grows with the logarithm of depth."""

import pytest
import torch
import torch.nn.functional as F

from revmodels import Precision, create_model
from revmodels.measure import peak_memory, predict_memory


def network(strategy, depth=38, dtype="fp64", name="revnet38", coupling="additive", width=0.25):
    torch.manual_seed(0)
    precision = Precision(compute=dtype, stream=dtype, coupling=coupling)
    return create_model(
        name,
        num_classes=10,
        depth=depth,
        width=width,
        stem="cifar",
        strategy=strategy,
        precision=precision,
    )


def images(dtype=torch.float64):
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype), torch.arange(4)


KINDS = {
    "revnet": {"depth": 38},
    "even": {"depth": 26},
    "one unit a stage": {"depth": 14},
    "exact": {"depth": 26, "coupling": "exact"},
    "resnet": {"name": "resnet32", "depth": 20, "width": 0.5},
    "irevnet": {"name": "irevnet", "depth": 20, "width": 1.0},
    "revvit": {"name": "revvit_small", "depth": 3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_statistics_are_the_stored_twin_s_to_the_bit(kind):
    x, y = images()
    models = [network(strategy, **KINDS[kind]) for strategy in ("recursive", "store")]
    for model in models:
        for _ in range(2):
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
    (recursive, stored) = models
    assert list(recursive.state_dict()) == list(stored.state_dict())
    for (name, p), q in zip(recursive.named_parameters(), stored.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    for (name, b), c in zip(recursive.named_buffers(), stored.buffers(), strict=True):
        assert torch.equal(b, c), name


def test_memory_grows_by_a_fixed_step_when_the_depth_doubles_and_is_predicted():
    batch = tuple(t.to("meta") for t in images(torch.float32))
    bytes_at = {
        depth: predict_memory(network("recursive", depth, "fp32"), batch).activation_bytes
        for depth in (26, 50, 98)
    }
    measured = peak_memory(network("recursive", 26, "fp32"), images(torch.float32)).activation_bytes
    assert measured == bytes_at[26]
    grows = bytes_at[50] - bytes_at[26], bytes_at[98] - bytes_at[50]
    assert grows[0] > 0
    assert grows[1] <= grows[0] + 1024
    assert bytes_at[98] < predict_memory(network("store", 98, "fp32"), batch).activation_bytes / 5
