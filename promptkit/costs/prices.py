"""Read a price file, and price tokens and hours."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptkit.errors import PromptkitError
from promptkit.storage.files import LARGEST_SOURCE, read_input
from promptkit.storage.parsing import parse_toml

_TABLES = "expected `currency` and [local] with per_hour, or [tokens] with input and output (per million), or both"


class LocalPrices(BaseModel):
    """What an hour of the hardware that ran this costs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    per_hour: float = Field(ge=0)


class TokenPrices(BaseModel):
    """What a million tokens cost of a provider.

    `cached_input` is for a prefix that was sent before, `training` for a token of a training row each time it is
    passed over, `tuned_input` and `tuned_output` for a model that was trained. Left out, a price is that without the
    word in front; `training` is not sold then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)
    training: float | None = Field(None, ge=0)
    tuned_input: float | None = Field(None, ge=0)
    tuned_output: float | None = Field(None, ge=0)


class Prices(BaseModel):
    """A price file: `local` for one's own hardware, `tokens` for a provider; either may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    currency: str = Field(min_length=1)
    local: LocalPrices | None = None
    tokens: TokenPrices | None = None


def load_prices(path: str | Path) -> Prices:
    """Return the prices of a TOML file.

    Raises PromptkitError for a file that cannot be read, is no TOML, has an unknown key or a price below 0.
    """
    try:
        content = parse_toml(read_input(path, LARGEST_SOURCE))
    except OSError as error:
        raise PromptkitError(f"{path}: the price file cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise PromptkitError(f"{path}: is no TOML: {error}") from error
    try:
        prices = Prices(**content)
    except (ValidationError, TypeError) as error:
        raise PromptkitError(f"{path}: {_first(error)}; {_TABLES}") from error
    if prices.local is None and prices.tokens is None:
        raise PromptkitError(f"{path}: has no price; {_TABLES}")
    return prices


def _first(error: ValidationError | TypeError) -> str:
    """Return the first thing that is wrong with a price file, and where."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place, message = ".".join(map(str, first["loc"])), first["msg"].lower()
    if first["type"] == "model_type":
        message = f"is no table, but {first['input']!r}"
    elif not isinstance(first["input"], dict):
        message += f", found {first['input']!r}"
    return f"{place}: {message}"
