"""Bits of the number formats that columns name."""

from __future__ import annotations

SIGNIFICAND = {
    "fp64": 53,
    "fp32": 24,
    "tf32": 11,
    "fp16": 11,
    "bf16": 8,
    "e4m3": 4,
    "e5m2": 3,
    "e3m2": 3,
    "e2m1": 2,
    "int8": 8,
    "int4": 4,
}
"""Bits of the significand, the implicit one included: a rounded number is off by at most 2^-P of itself."""
