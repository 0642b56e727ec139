"""Sizes are read as people write them, and some memory is always free."""

from __future__ import annotations

import pytest

from promptkit.costs.memory import choose_budget, find_free, parse_size
from promptkit.errors import PromptkitError


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("512MiB", 2**29), ("1.5 gib", 3 * 2**29), ("800k", 800_000), ("77", 77), (2**40, 2**40)],
)
def test_sizes_are_bytes(text: str | int, size: int) -> None:
    """Decimal and binary units, with or without the B, in any case."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GB", "2XB", "GB", "0.1", "9" * 400])
def test_no_size_is_an_error(text: str) -> None:
    """What is no size above 0 is named, with examples."""
    with pytest.raises(PromptkitError, match=r"memory .* is not a size above 0; expected one such as 2GB, 512MiB"):
        parse_size(text)


def test_budget_is_half_of_what_is_free() -> None:
    """Without a size asked for, half of the free memory is taken."""
    assert choose_budget(123, "cpu") == 123
    free = find_free("cpu")
    assert 2**20 < free < 2**50
    assert free / 4 < choose_budget(None, "cpu") < free
