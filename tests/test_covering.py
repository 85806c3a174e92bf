"""What is left to wide runs."""

from itertools import combinations, product

import pytest

from tests.covering import cover

ROWS = [dict(zip("abc", row, strict=True)) for row in product("xyz", (0, 1, 2, 3), (True, False))]


@pytest.mark.parametrize(("strength", "fewest", "most"), [(1, 4, 4), (2, 12, 15), (3, 24, 24)])
def test_every_combination_occurs_in_few_rows(strength, fewest, most):
    kept = cover(ROWS, strength)
    assert fewest <= len(kept) <= most
    for keys in combinations("abc", strength):
        occurring = {tuple(row[k] for k in keys) for row in ROWS}
        assert {tuple(ROWS[n][k] for k in keys) for n in kept} == occurring


def test_values_without_an_order_may_be_parameters():
    assert cover([{"f": len}, {"f": None}, {"f": len}], 1) == {0, 1}
