"""Price files: what they may hold, and what is said where they hold something else."""

from __future__ import annotations

import pytest

from promptkit.costs.prices import load_prices
from promptkit.errors import PromptkitError
from tests.conftest import Project


def test_a_price_file_is_read(project: Project) -> None:
    """Hardware by the hour and tokens by the million; what is left out is None."""
    path = project.write("prices.toml", 'currency = "EUR"\nlocal.per_hour = 2\n[tokens]\ninput = 1.0\noutput = 4.0\n')
    prices = load_prices(path)
    assert prices.currency == "EUR"
    assert prices.local is not None
    assert prices.local.per_hour == 2
    assert prices.tokens is not None
    assert (prices.tokens.input, prices.tokens.output, prices.tokens.training) == (1, 4, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("currency = EUR", "is no TOML"),
        ('currency = "EUR"', "has no price; expected `currency` and"),
        ('currency = "EUR"\nlocal.per_day = 2', r"local\.per_hour: field required; expected"),
        ('currency = "EUR"\nlocal.per_hour = -2', r"local\.per_hour: input should be greater than or equal to 0"),
        ('currency = "EUR"\nlocal.per_hour = "2"', r"local\.per_hour: input should be a valid number, found '2'"),
        ('currency = "EUR"\nlocal.per_hour = true', r"local\.per_hour: input should be a valid number, found True"),
        ('currency = "EUR"\nlocal = 3', r"local: is no table, but 3; expected"),
        ('currency = "EUR"\nlocal.per_hour = nan', r"local\.per_hour: input should be"),
        ('currency = "EUR"\nlocal.per_hour = 1\ntoken.input = 1', "token: extra inputs are not permitted"),
        ("local.per_hour = 2", "currency: field required"),
    ],
)
def test_what_is_no_price_file_is_explained(project: Project, text: str, message: str) -> None:
    """One line names the file, the key and what is expected."""
    path = project.write("prices.toml", text)
    with pytest.raises(PromptkitError, match=rf"prices\.toml: .*{message}"):
        load_prices(path)


def test_a_missing_file_is_explained(project: Project) -> None:
    """The path is named."""
    with pytest.raises(PromptkitError, match=r"none\.toml: the price file cannot be read \(No such file"):
        load_prices("none.toml")
