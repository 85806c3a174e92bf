"""The source of known entropy: what is drawn is what its entropy is of."""

import math

import pytest
import torch

from study.data.markov import SYMBOLS, MarkovSource, markov_source
from study.data.text import load_text
from study.data.tokens import IGNORED
from study.errors import DataError


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_model_that_knows_the_chain_has_the_entropy_as_its_loss(order):
    source = markov_source(order)
    data = load_text(f"markov:{order}", context_length=64)
    batch = data.val.batch(torch.arange(2048))
    context_BT = torch.zeros_like(batch.tokens_BT)
    for back in range(order):
        context_BT[:, order - 1 :] += batch.tokens_BT[:, order - 1 - back : 64 - back] * SYMBOLS**back
    learnt_BT = batch.targets_BT != IGNORED
    assert learnt_BT.sum(1).tolist() == [64 - order + 1] * 2048 == batch.bytes_B.tolist()
    loss = -source.next_KS[context_BT[learnt_BT], batch.targets_BT[learnt_BT]].log()
    error = float(loss.std()) / math.sqrt(len(loss))
    assert abs(float(loss.mean()) - data.entropy_nats_per_token) < 4 * error
    assert error < 0.005
    # What knows one symbol alone does worse, and its best loss is known too.
    pairs = torch.zeros(SYMBOLS, SYMBOLS, dtype=torch.float64)
    pairs.index_put_(
        (batch.tokens_BT[learnt_BT], batch.targets_BT[learnt_BT]), torch.tensor(1.0).double(), accumulate=True
    )
    counted = -(pairs * (pairs / pairs.sum(1, keepdim=True)).log()).nansum() / pairs.sum()
    assert float(counted) / math.log(2) == pytest.approx(data.bigram_bits_per_byte, abs=0.01)
    assert data.bigram_bits_per_byte * math.log(2) >= data.entropy_nats_per_token - 1e-12


def test_shares_of_contexts_do_not_change_in_a_step():
    source = MarkovSource(2)
    share, following = source.share_K, torch.zeros_like(source.share_K)
    for context in range(SYMBOLS**2):
        for symbol in range(SYMBOLS):
            following[context * SYMBOLS % SYMBOLS**2 + symbol] += (
                share[context] * source.next_KS[context, symbol]
            )
    torch.testing.assert_close(following, share, rtol=0, atol=1e-12)


def test_draws_follow_from_split_and_number_alone():
    data = load_text("markov:2", context_length=16)
    a, b = data.train.batch(torch.tensor([5, 9])), data.train.batch(torch.tensor([9]))
    assert torch.equal(a.tokens_BT[1], b.tokens_BT[0])
    assert not torch.equal(b.tokens_BT, data.val.batch(torch.tensor([9])).tokens_BT)
    with pytest.raises(IndexError):
        data.val.batch(torch.tensor([len(data.val)]))


@pytest.mark.parametrize(
    ("name", "context_length", "path"),
    [("markov:0", 8, "data.name"), ("markov:", 8, "data.name"), ("markov:4", 3, "data.context_length")],
)
def test_orders_and_contexts_that_there_are_not(name, context_length, path):
    with pytest.raises(DataError) as caught:
        load_text(name, context_length=context_length)
    assert caught.value.path == path
    assert caught.value.remedy
