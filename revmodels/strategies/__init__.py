"""How a training step has its activations in the backward pass: the memory strategies, one file each.

A strategy's file says all of it: its name, what it needs, how it runs, whether it compiles, whether it
inverts, and what it promises of memory. Everything else asks, and compares no names.

- `revmodels.strategies.strategy.Strategy` is what all of them answer: read it first.
- `revmodels.strategies.registry` has them by name: ``STRATEGIES`` (the names), ``find_strategy(name)`` and
  ``default_strategy(invertible)``.

Both, and the files of the strategies, import no PyTorch until something runs, so a planner may ask what it
likes: ``find_strategy("compile").settings``, ``.inverts``, ``.needs_inverse``, ``.whole_network``.

To add a strategy, write ``strategies/<name>.py`` with one subclass of `Strategy`, and list it in the
registry. `revmodels.strategies.budget_plan` is the planner behind ``budget``.
"""
