"""The ledger: kinds of tokens add up to what the model reads, trials and money to what was tried and priced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from promptkit.analysis.ledger import ItemTokens, item_flops, price_tokens
from promptkit.building.build import build_pairs, build_prompts
from promptkit.costs.flops import Shape, forward_flops
from promptkit.costs.prices import LocalPrices, Prices, TokenPrices
from promptkit.experiments.compare import compare
from promptkit.models import Model
from tests.conftest import TEMPLATE, Project
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

SMALL: dict[str, Any] = {"limit": 4, "shots": (2,), "draws": 2, "seeds": 2, "epochs": 1, "rank": 2, "data": "data"}
PRICES = Prices(
    currency="EUR",
    local=LocalPrices(per_hour=3600),
    tokens=TokenPrices(input=10, output=40, cached_input=1, training=20, tuned_input=15),
)
TOKENS = ItemTokens(template=100, demonstrations=900, input=50, label=6, generated=20, choices=2)


@pytest.fixture
def small(project: Project) -> Model:
    """A random model with a window of 256 tokens, saved as a folder of the project."""
    return saved(random_model(window=256), project.root / "small")


def rows_of(result: dict[str, Any], method: str) -> list[dict[str, Any]]:
    """Return the ledger's rows of a method."""
    return [row for row in result["ledger"]["conditions"] if row["method"] == method]


def count(model: Model, texts: Sequence[str]) -> int:
    """Return the tokens of texts, each encoded as a whole."""
    return sum(len(model.encoder.encode(text)) for text in texts)


def test_kinds_add_up_to_what_is_read(small: Model) -> None:
    """Template, demonstrations and input are the prompt's tokens; a training's are its rows', once per pass."""
    result = compare("films", model=small.name, **{**SMALL, "draws": 1, "order": "given"})
    prompts = build_prompts("films", "films/plain", k=2, data="data", limit=4)["prompt"]
    (shown,), trained = rows_of(result, "few-shot"), rows_of(result, "lora")[-1]
    kinds = shown["tokens_per_item"]
    assert sum(kinds[kind] for kind in ("template", "demonstrations", "input")) == count(small, prompts) / 4
    assert kinds["demonstrations"] > kinds["template"] > 0
    assert (kinds["choices"], kinds["generated"]) == (2, 0)
    (bare,) = rows_of(result, "zero-shot")
    assert bare["tokens_per_item"] == {**kinds, "demonstrations": 0}

    pairs = build_pairs("films", "films/plain", data="data")
    training = trained["training"]
    assert training["rows"] == len(pairs)
    passes = training["epochs"]
    assert sum(training["tokens"].values()) == training["tokens"]["validation"] + passes * count(
        small, [pair["prompt"] + pair["completion"] for pair in pairs]
    )
    assert training["tokens"]["completion"] == passes * sum(
        len(small.encoder.join(pair["prompt"], pair["completion"]).ids) - len(small.encoder.encode(pair["prompt"]))
        for pair in pairs
    )


def test_chat_counts_its_markup_as_template(small: Model) -> None:
    """What the chat template puts around the turns is neither demonstrations nor the query."""
    plain, chat = (
        rows_of(compare("films", model=small.name, chat=chat, methods=("zero-shot", "few-shot"), **SMALL), "zero-shot")
        for chat in (False, True)
    )
    assert chat[0]["tokens_per_item"]["template"] > plain[0]["tokens_per_item"]["template"]
    assert chat[0]["tokens_per_item"]["demonstrations"] == 0


def test_trials_are_what_was_tried(small: Model) -> None:
    """All draws and all seeds are counted with what they took, and the break-even counts know them."""
    result = compare("films", model=small.name, **SMALL)
    cells = result["cells"]
    tried = result["ledger"]["choosing"]
    prompts = [cell for cell in cells if cell["method"] != "lora"]
    adapters = [cell for cell in cells if cell["method"] == "lora"]
    assert tried["prompts"]["tried"] == len(prompts) == 3
    assert tried["prompts"]["flops"] == pytest.approx(sum(cell["cost"]["flops"] for cell in prompts))
    assert (tried["adapters"]["tried"], tried["adapters"]["seeds"]) == (len(adapters), [0, 1])
    spent = sum(cell["cost"]["flops"] + cell["train_cost"]["flops"] for cell in adapters)
    assert tried["adapters"]["flops"] == pytest.approx(spent)
    counts = result["break_even"]["few-shot"]
    assert counts["items_with_trials"] > counts["items"]
    assert result["break_even"]["zero-shot"]["items_with_trials"] is None


def test_assumptions_are_said(small: Model) -> None:
    """What the counts take for granted is in words; nothing is said where nothing is trained."""
    said = compare("films", model=small.name, train_sizes=(2, 4), **SMALL)["ledger"]["assumptions"]
    assert said[0].startswith("Training is one adapter on 4 rows, 30 passes, its validation included; it is merged")
    assert any(sentence.startswith("Retrieved (bm25): each prompt has demonstrations of its own") for sentence in said)
    once = compare("films", model=small.name, **{**SMALL, "methods": ("lora",), "epochs": 1})["ledger"]["assumptions"]
    assert "rows, 1 pass, its validation included" in once[0]
    assert compare("films", model=small.name, methods=("zero-shot",), **SMALL)["ledger"]["assumptions"] == []


def test_items_compute_what_the_formula_says() -> None:
    """A shared prefix is computed once, retrieved demonstrations for each item; choices are behind either."""
    shape = Shape(body=1000, head=100, layers=2, attention=8)
    shared = item_flops(shape, TOKENS)
    assert shared.once == forward_flops(shape, 1000, read=0)
    fed = 6 - 2  # of three tokens per choice the last is scored and not fed
    written = forward_flops(shape, 20, cached=1000 + 50 + fed, read=20)
    assert shared.shared == forward_flops(shape, 50 + fed, cached=1000, read=1 + fed) + written
    retrieved = item_flops(shape, TOKENS, retrieved=True)
    assert retrieved.once == forward_flops(shape, 100, read=0)
    assert retrieved.shared == forward_flops(shape, 950 + fed, cached=100, read=1 + fed) + written
    assert retrieved.recomputed == shared.recomputed


def test_tokens_are_priced() -> None:
    """An item pays its prompt and what it writes; a cached prefix its lower price; training its passes."""
    written = (20 + 3) * 40
    untrained = price_tokens(PRICES, TOKENS, None)
    assert untrained == {
        "recomputed": pytest.approx((1050 * 10 + written) / 1000),
        "shared": pytest.approx((1000 * 1 + 50 * 10 + written) / 1000),
        "once": pytest.approx(1000 * 9 / 1e6),
        "training": None,
    }
    retrieved = price_tokens(PRICES, TOKENS, None, retrieved=True)
    assert retrieved["shared"] == pytest.approx((100 * 1 + 950 * 10 + written) / 1000)
    training = {"tokens": {"template": 1e6, "input": 2e6, "completion": 5e5, "validation": 9e6}}
    tuned = price_tokens(PRICES, TOKENS, training)
    assert tuned["training"] == pytest.approx(3.5 * 20)  # validation is one's own to run
    assert tuned["shared"] == tuned["recomputed"] == pytest.approx((1050 * 15 + written) / 1000)


def test_money_is_told_on_both_sides(small: Model, project: Project) -> None:
    """With a price file every condition has its price, and zero-shot is `never` undercut."""
    project.write(
        "prices.toml", 'currency = "EUR"\nlocal.per_hour = 1\n[tokens]\ninput = 1\noutput = 2\ntraining = 3\n'
    )
    ledger = compare("films", model=small.name, prices="prices.toml", **SMALL)["ledger"]
    assert ledger["prices"]["currency"] == "EUR"
    for row in ledger["conditions"]:
        assert (row["money"]["tokens"]["training"] is not None) == (row["method"] == "lora")
        assert row["money"]["local"]["per_1000"] > 0
    counts = ledger["break_even_money"]
    assert counts["zero-shot k=0"]["recomputed"] is None
    assert counts["few-shot k=2"]["recomputed"] > 0
    project.write("templates/films/other.jinja", TEMPLATE.replace("Sentiment:", "It is"))
    given = {**SMALL, "templates": ("films/plain", "films/other"), "draws": 1, "seeds": 1}
    two = compare("films", model=small.name, prices="prices.toml", **given)
    named = [f"{shots} films/{name}" for shots in ("zero-shot k=0", "few-shot k=2") for name in ("plain", "other")]
    assert sorted(two["ledger"]["break_even_money"]) == sorted(named)
