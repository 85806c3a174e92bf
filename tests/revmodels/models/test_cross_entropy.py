"""Cross-entropy in chunks against its twin that has all logits at once."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from revmodels.errors import DoubleBackwardError
from revmodels.models.cross_entropy import IGNORED, chunked_cross_entropy, cross_entropy

D, V = 16, 31


def problem(shape=(3, 17), dtype=torch.float64, ignored=5):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(V, shape, generator=generator)
    targets.view(-1)[:ignored] = IGNORED
    return hidden, weight, targets


def close(found, exact, tolerance=1e-12):
    for a, b in zip(found, exact, strict=True):
        assert (a - b).norm() <= tolerance * (b.norm() + 1e-30)


@pytest.mark.parametrize("chunk", [1, 2, 7, 50, 51, 1000])
@pytest.mark.parametrize("ignored", [0, 5, 20])
def test_equals_the_twin(chunk, ignored):
    hidden, weight, targets = problem(ignored=ignored)
    found, exact = (
        chunked_cross_entropy(hidden, weight, targets, chunk=chunk),
        cross_entropy(hidden, weight, targets),
    )
    assert found.tokens == exact.tokens == 51 - ignored
    close([found.total, found.mean], [exact.total, exact.mean])
    gradients = [torch.autograd.grad(3 * loss.mean, (hidden, weight)) for loss in (found, exact)]
    close(*gradients)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_only_what_needs_a_gradient_gets_one(frozen):
    hidden, weight, targets = problem()
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    trained = weight if frozen == "hidden" else hidden
    found = chunked_cross_entropy(hidden, weight, targets, chunk=9)
    exact = cross_entropy(hidden, weight, targets)
    close(torch.autograd.grad(found.total, trained), torch.autograd.grad(exact.total, trained))


def test_a_retained_graph_can_be_differentiated_again():
    hidden, weight, targets = problem()
    loss = chunked_cross_entropy(hidden, weight, targets, chunk=9).mean
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    assert all(
        torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, (hidden, weight)), strict=True)
    )


def test_a_second_derivative_is_an_error_and_no_wrong_number():
    hidden, weight, targets = problem()
    loss = chunked_cross_entropy(hidden, weight, targets, chunk=9).mean
    with pytest.raises(DoubleBackwardError, match=r"a loss in chunks has no second.*Use cross_entropy"):
        torch.autograd.grad(loss, hidden, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype):
    hidden, weight, targets = problem(shape=(40, 40), dtype=dtype)
    found, exact = (
        chunked_cross_entropy(hidden, weight, targets, chunk=100),
        cross_entropy(hidden, weight, targets),
    )
    assert found.total.dtype == torch.float32
    close([found.total], [exact.total], 1e-5)
    gradients = [torch.autograd.grad(loss.total, (hidden, weight)) for loss in (found, exact)]
    assert all(g.dtype == dtype for g in gradients[0])
    close(*gradients, tolerance=0.01)


def test_under_autocast_products_have_its_dtype_and_weights_their_own():
    hidden, weight, targets = problem(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = chunked_cross_entropy(hidden, weight, targets, chunk=9)
        exact = cross_entropy(hidden, weight, targets)
    close([found.total], [exact.total], 1e-5)
    gradients = [torch.autograd.grad(loss.total, (hidden, weight)) for loss in (found, exact)]
    assert all(g.dtype == torch.float32 for g in gradients[0])
    close(*gradients, tolerance=0.01)
    assert found.total != cross_entropy(hidden, weight, targets).total, "products were shortened"


class Largest(TorchDispatchMode):
    """The most numbers that any one operation returned."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor):
                self.numbers = max(self.numbers, t.numel())
        return out


def test_logits_are_never_whole():
    hidden, weight, targets = problem(shape=(8, 64))
    found = {}
    for name, loss in (("chunks", lambda *p: chunked_cross_entropy(*p, chunk=32)), ("twin", cross_entropy)):
        with Largest() as seen:
            loss(hidden, weight, targets).mean.backward()
        found[name] = seen.numbers
    assert found["twin"] >= 512 * V
    assert found["chunks"] == 512 * D, "nothing is larger than what came in"


def test_compiles_as_one_graph():
    hidden, weight, targets = problem()
    compiled = torch.compile(lambda *p: chunked_cross_entropy(*p, chunk=20).mean, fullgraph=True)
    found = torch.autograd.grad(compiled(hidden, weight, targets), (hidden, weight))
    close(found, torch.autograd.grad(cross_entropy(hidden, weight, targets).mean, (hidden, weight)))


@pytest.mark.parametrize("chunk", [0, -1, 2.0, True])
def test_a_chunk_of_no_tokens_is_refused(chunk):
    with pytest.raises(ValueError, match="chunk: a whole number of tokens of at least 1; received"):
        chunked_cross_entropy(*problem(), chunk=chunk)
