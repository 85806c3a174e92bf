"""Recursive checkpointing: the stored network's numbers, in memory that grows with the logarithm of depth."""

import pytest
import torch
import torch.nn.functional as F

from revmodels.measure import peak_memory, predict_memory
from study.data.load import DataShape
from study.errors import StudyError
from study.identity import resolve
from study.settings import MemorySettings, ModelSettings, PrecisionSettings, TrialSettings
from study.train.build import build_model

SHAPE = DataShape(in_channels=3, image_size=8, num_classes=10)


def network(strategy, depth=38, dtype="fp64"):
    torch.manual_seed(0)
    settings = TrialSettings(
        model=ModelSettings(name="revnet38", depth=depth, width=0.25),
        memory=MemorySettings(strategy=strategy),
        precision=PrecisionSettings(compute=dtype, stream=dtype),
    )
    return build_model(resolve(settings), SHAPE)


def images(dtype=torch.float64):
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype), torch.arange(4)


@pytest.mark.parametrize("depth", [14, 26, 38])
def test_gradients_and_statistics_are_the_stored_twin_s_to_the_bit(depth):
    x, y = images()
    models = [network(strategy, depth) for strategy in ("recursive", "store")]
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ModelSettings(name="resnet32")}, "is offered for RevNets, and resnet32 is none"),
        ({"precision": PrecisionSettings(coupling="exact")}, "goes with additive coupling alone"),
    ],
)
def test_where_it_is_not_offered(settings, message):
    with pytest.raises(StudyError, match=message):
        resolve(TrialSettings(memory=MemorySettings(strategy="recursive"), **settings))
