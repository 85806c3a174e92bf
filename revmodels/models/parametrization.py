"""How weights, products and learning rates of a language model depend on its width and depth.

``standard`` is GPT-2's: one standard deviation for all, one learning rate. The best rate then moves with the
size. ``mup`` (Yang et al. 2022, "Tensor Programs V", table 8, for AdamW) scales with the width, so that a
rate that is best for a narrow network is best for a wide one. ``completep`` (Dey et al. 2025, "Don't be lazy:
CompleteP enables compute-efficient deep transformers", table 1 with α = 1) scales with the depth too: every
output that is added to a stream is multiplied by 1/L.

With m = d / 256 and n = L / 2, both 1 at the base, where all three are the same network but for the output
layer:

| | ``standard`` | ``mup`` | ``completep`` |
|---|---|---|---|
| start of hidden layers | 0.02 | 0.02 / √m | 0.02 / √m |
| start of a block's two outputs | 0.02 / √(2 L) | 0.02 / √(2 L m) | 0.02 / √(4 m) |
| their factor | 1 | 1 | 1 / n |
| scores of attention | q·k / √h | 8 q·k / h | 8 q·k / h |
| start of an output layer of its own | 0.02 | 0 | 0 |
| logits | h W' | h W' / m | h W' / m |
| rate of hidden layers | η | η / m | η / m |
| weight decay of hidden layers | λ | λ m | λ m |
| ε of AdamW, hidden layers | ε | ε / m | ε / (m n) |

Embedding, output layer and gains have rate η everywhere. The embedding starts as in ``standard``, and so does
an output layer that is tied to it. The factor 8 makes heads of 64 features, which most presets have, equal in
all three.

An output layer that starts at random gives logits whose size falls as 1/√m: a part that the limit of wide
networks does not have, and that is large in narrow ones. Starting at zero leaves it out (Yang et al. 2022,
appendix D.2). In a coordinate check from 128 to 512 features the slope of the logits' change was -0.31 with
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from revmodels.errors import LanguageError, one_of

PARAMETRIZATIONS = ("standard", "mup", "completep")
BASE_WIDTH = 256
BASE_DEPTH = 2
BASE_HEAD = 64
STD = 0.02


def check_parametrization(name: object) -> None:
    """See that there is such a parametrization.

    Raises:
        LanguageError: there is none.
    """
    if name not in PARAMETRIZATIONS:
        raise LanguageError(f"parametrization: {one_of(name, PARAMETRIZATIONS)}")


@dataclass(frozen=True, kw_only=True)
class Scales:
    """The numbers of a network of one shape.

    Attributes:
        hidden_std: standard deviation with which layers inside a block start.
        added_std: of the two layers of a block whose output is added to a stream.
        output_std: of an output layer that is not tied to the embedding.
        added_factor: what those outputs are multiplied by.
        attention_factor: what products of queries and keys are multiplied by.
        logits_factor: what logits are multiplied by.
        hidden_rate: multiplier on the learning rate of layers inside a block.
        hidden_decay: multiplier on their weight decay.
        hidden_eps: multiplier on AdamW's ε for them.
    """

    hidden_std: float = STD
    added_std: float
    output_std: float = STD
    added_factor: float = 1.0
    attention_factor: float
    logits_factor: float = 1.0
    hidden_rate: float = 1.0
    hidden_decay: float = 1.0
    hidden_eps: float = 1.0


def scales(parametrization: str, *, width: int, depth: int, head: int) -> Scales:
    """Return the numbers of a network.

    Args:
        parametrization: ``standard``, ``mup`` or ``completep``.
        width: d, features of a stream.
        depth: L, blocks.
        head: h, features of an attention head.
    """
    if parametrization == "standard":
        return Scales(added_std=STD / math.sqrt(2 * depth), attention_factor=1 / math.sqrt(head))
    m = width / BASE_WIDTH
    deep = parametrization == "completep"
    n = depth / BASE_DEPTH if deep else 1.0
    return Scales(
        hidden_std=STD / math.sqrt(m),
        added_std=STD / math.sqrt(2 * (BASE_DEPTH if deep else depth) * m),
        output_std=0.0,
        added_factor=1 / n,
        attention_factor=math.sqrt(BASE_HEAD) / head,
        logits_factor=1 / m,
        hidden_rate=1 / m,
        hidden_decay=m,
        hidden_eps=1 / (m * n),
    )
