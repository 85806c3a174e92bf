"""What the command line keeps libraries from importing, so that a verb starts in half the time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _WithoutPandas(MetaPathFinder):
    """Says that pandas is not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def leave_out_pandas() -> None:
    """Keep PyArrow from importing pandas in this process.

    PyArrow imports pandas as soon as it makes an array or a number, in case it is given a data frame. That
    takes longer than most verbs do, and no verb holds a data frame. PyArrow has no setting for it, but it
    asks only once: it is made to ask while pandas cannot be imported. Whoever imports pandas after this gets
    it.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _WithoutPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(finder)
