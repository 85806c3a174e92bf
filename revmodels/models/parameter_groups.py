"""The parameters of a language model in groups, each with the learning rate of its parametrization."""

from __future__ import annotations

from typing import Any

from torch import nn

from revmodels.errors import LanguageError
from revmodels.models.language import LanguageModel


def parameter_groups(
    model: nn.Module, lr: float, *, weight_decay: float = 0.0, eps: float = 1e-8
) -> list[dict[str, Any]]:
    """Return the parameters of a language model in groups for AdamW, each with its own rate, decay and ε.

    Args:
        model: from `revmodels.create_model`, with the parametrization that counts.
        lr: η, the learning rate at the base.
        weight_decay: λ of matrices; gains and the embedding have none.
        eps: ε of AdamW at the base.

    Returns:
        Groups for ``torch.optim.AdamW``: matrices inside blocks; the output layer; embedding and gains. Each
        has ``lr``, ``weight_decay``, ``eps`` and ``lr_multiplier``, by which a schedule that sets ``lr``
        multiplies its rate.

    Raises:
        LanguageError: `model` is no language model.

    Example:
        >>> import revmodels
        >>> model = revmodels.create_model("revgpt_1m", width=4.0, parametrization="mup")
        >>> [group["lr"] for group in parameter_groups(model, lr=0.01)]
        [0.005, 0.01, 0.01]
    """
    if not isinstance(model, LanguageModel):
        raise LanguageError(
            f"parameter_groups: only language models have parametrizations; received {type(model).__name__}. "
            "Give the optimizer its parameters as they are."
        )
    at = model.architecture.at_width(model.width).scales
    embedding, output = model.stem.weight, model.head.output.weight
    hidden = [p for p in model.body.parameters() if p.dim() > 1]
    gains = [p for p in (*model.body.parameters(), *model.head.norm.parameters()) if p.dim() == 1]
    outputs = [] if output is embedding else [output]
    groups = (
        (hidden, at.hidden_rate, weight_decay * at.hidden_decay, eps * at.hidden_eps),
        (outputs, 1.0, weight_decay, eps),
        ([embedding, *gains], 1.0, 0.0, eps),
    )
    return [
        {"params": parameters, "lr": lr * rate, "lr_multiplier": rate, "weight_decay": decay, "eps": e}
        for parameters, rate, decay, e in groups
        if parameters
    ]
