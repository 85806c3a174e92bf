"""How a section of a study file is read."""

from __future__ import annotations


class Strict:
    """How pydantic reads the dataclasses of a study file: no unknown keys, ``"10"`` is no number."""

    __pydantic_config__ = {  # noqa: RUF012
        "strict": True,
        "extra": "forbid",
        "allow_inf_nan": False,
        "revalidate_instances": "always",
    }
