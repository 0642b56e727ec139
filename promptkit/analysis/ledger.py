"""Account for a comparison's costs: tokens by kind, trials, money, and what break-even counts assume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from promptkit.analysis.cells import FinishedCell
from promptkit.analysis.comparison_result import name_condition, prompted, say_condition, trained_on_pool
from promptkit.costs.flops import PromptFlops, Shape, break_even, prompt_flops, shape_of
from promptkit.costs.prices import Prices
from promptkit.data.record import Record, hash_records
from promptkit.data.splits import Splits
from promptkit.prompts.pair import build_pair
from promptkit.templating.template import BoundTemplate

if TYPE_CHECKING:
    from promptkit.models import Model

Groups = Sequence[Sequence[FinishedCell]]


@dataclass(frozen=True, slots=True)
class ItemTokens:
    """The tokens of one test item by kind, means over items and runs.

    `template` is the instruction with its separator (for chat, all that is neither demonstrations nor the query),
    `demonstrations` what is shown solved, `input` the query, `label` all its `choices` together, `generated` what
    is written.
    """

    template: float
    demonstrations: float
    input: float
    label: float
    generated: float
    choices: float

    @property
    def prefix(self) -> float:
        """What stands before the query."""
        return self.template + self.demonstrations

    @property
    def answer(self) -> float:
        """What a model that writes its answer writes: the text, and one label."""
        return self.generated + (self.label / self.choices if self.choices else 0.0)


@dataclass(frozen=True, slots=True)
class RowTokens:
    """The tokens of all `rows` of a training together, each passed over once, by kind; `completion` has the loss."""

    rows: int
    template: int
    input: int
    completion: int

    @property
    def read(self) -> int:
        """What the network reads in one pass: all but each row's last, which is only predicted."""
        return self.template + self.input + self.completion - self.rows


class TokenCounter:
    """Counts tokens by kind with one model's tokenizer, what several conditions share once."""

    def __init__(self, model: Model, splits: Splits) -> None:
        self.model, self.splits = model, splits
        self._bare: dict[tuple[str, bool], tuple[float, float, float]] = {}

    def of_item(self, cells: Sequence[FinishedCell]) -> ItemTokens:
        """Return the tokens of a test item of these cells, runs of one condition."""
        condition = cells[0].condition
        bare, label, choices = self._without_demonstrations(condition.bound, condition.chat)
        prompt = fmean(cell.result["prompt_tokens"] for cell in cells)
        query = min(fmean(cell.result["query_tokens"] for cell in cells), bare)
        generated = fmean(cell.result["tokens_generated"] for cell in cells) / len(self.splits.test)
        shown = max(0.0, prompt - bare) if condition.k else 0.0
        template = round(max(0.0, prompt - shown - query), 6)  # what is left of a difference of means is no token
        return ItemTokens(template, shown, query, label, generated, choices)

    def _without_demonstrations(self, bound: BoundTemplate, chat: bool) -> tuple[float, float, float]:
        """Return the mean tokens of a prompt without demonstrations and of all its choices, and how many those are."""
        key = bound.template.name, chat
        if key not in self._bare:
            from promptkit.building.build import render_prompts

            encoder, prompts = self.model.encoder, list(render_prompts(bound, self.splits.test, chat=chat))
            texts = [encoder.chat_prefix(prompt.messages) if chat else prompt.text for prompt in prompts]
            pairs = [
                (text, encoder.chat_completion(prompt.messages, choice) if chat else choice)
                for text, prompt in zip(texts, prompts, strict=True)
                for choice in prompt.choices
            ]
            labels = sum(len(each.ids) - each.start for each in encoder.join_all(pairs, chat=chat))
            self._bare[key] = (
                fmean(map(len, encoder.encode_all(texts, chat=chat))),
                labels / len(prompts),
                len(pairs) / len(prompts),
            )
        return self._bare[key]

    def of_rows(self, bound: BoundTemplate, rows: Sequence[Record], chat: bool) -> RowTokens:
        """Return the tokens of training rows."""
        from promptkit.training.batches import encode_pairs

        encoded = encode_pairs(self.model, [build_pair(bound, record, chat=chat) for record in rows], chat=chat)
        whole, completion = sum(len(row.ids) for row in encoded), sum(row.targets for row in encoded)
        inputs = sum(map(len, self.model.encoder.encode_all([bound.input(record) for record in rows], chat=True)))
        return RowTokens(len(rows), whole - completion - inputs, inputs, completion)


def item_flops(shape: Shape, tokens: ItemTokens, *, retrieved: bool = False) -> PromptFlops:
    """Return what an item computes, its choices included; of retrieved demonstrations only the template is shared."""
    before = tokens.template if retrieved else tokens.prefix
    fed = max(0.0, tokens.label - tokens.choices)  # the last token of a choice is scored and not fed
    behind = tokens.input + (tokens.demonstrations if retrieved else 0.0) + fed
    return prompt_flops(
        shape, round(before), max(1, round(behind)), generated=round(tokens.generated), read=1 + round(fed)
    )


def keep_ledger(model: Model, splits: Splits, groups: Groups, prices: Prices | None = None) -> dict[str, Any]:
    """Return the ledger as JSON: a row per condition, what choosing took, prices, and the break-even's assumptions."""
    counter, shape, items = TokenCounter(model, splits), shape_of(model.network), len(splits.test)
    rows = []
    for group in groups:
        tokens, trained = counter.of_item(group), _training(counter, group)
        flops = item_flops(shape, tokens, retrieved=group[0].pool_rows is not None)
        rows.append(
            {
                **name_condition(group[0]),
                "runs": len(group),
                "tokens_per_item": asdict(tokens),
                "flops_per_item": asdict(flops),
                "training": trained,
                **({"money": _price(prices, group, tokens, trained, items)} if prices else {}),
            }
        )
    return {
        "conditions": rows,
        "choosing": _choosing(groups),
        "prices": prices.model_dump() if prices else None,
        "break_even_money": count_money_break_even(groups, rows) if prices else {},
        "assumptions": _assumptions(groups, rows),
    }


def _training(counter: TokenCounter, group: Sequence[FinishedCell]) -> dict[str, Any] | None:
    """Return the mean of the runs' trainings: tokens by kind over all epochs, FLOPs, seconds."""
    runs = [cell for cell in group if cell.trained and cell.train_cost]
    if not runs:
        return None
    condition = runs[0].condition
    known: dict[str, RowTokens] = {}
    kinds = []
    for cell in runs:
        key = hash_records(cell.rows)
        if key not in known:
            known[key] = counter.of_rows(condition.bound, cell.rows, condition.chat)
        kinds.append((known[key], _epochs(cell)))
    read = fmean(tokens.read * epochs for tokens, epochs in kinds)
    costs = [cell.train_cost for cell in runs if cell.train_cost]
    return {
        "rows": runs[0].train_rows,
        "epochs": fmean(epochs for _, epochs in kinds),
        "tokens": {
            "template": fmean(tokens.template * epochs for tokens, epochs in kinds),
            "input": fmean(tokens.input * epochs for tokens, epochs in kinds),
            "completion": fmean(tokens.completion * epochs for tokens, epochs in kinds),
            "validation": max(0.0, fmean(cost.tokens_computed for cost in costs) - read),
        },
        "flops": fmean(cost.flops for cost in costs),
        "seconds": fmean(cost.seconds for cost in costs),
        "peak_memory_bytes": max(cost.peak_memory_bytes for cost in costs),
    }


def _epochs(cell: FinishedCell) -> int:
    return int((cell.trained or {}).get("epochs", 0))


def _choosing(groups: Groups) -> dict[str, Any]:
    """Return how many prompts and adapters were tried in all, and what trying them took: the cost of choosing."""
    prompts = [cell for group in groups for cell in group if cell.train_rows is None]
    adapters = [cell for group in groups for cell in group if cell.train_rows is not None]
    trained = [cell.train_cost for cell in adapters if cell.train_cost]
    scored = [cell.cost for cell in adapters]
    return {
        "prompts": {
            "tried": len(prompts),
            "flops": sum(cell.cost.flops for cell in prompts),
            "seconds": sum(cell.cost.seconds for cell in prompts),
        },
        "adapters": {
            "tried": len(adapters),
            "seeds": sorted({cell.seed for cell in adapters if cell.seed is not None}),
            "flops": sum(cost.flops for cost in (*trained, *scored)),
            "seconds": sum(cost.seconds for cost in (*trained, *scored)),
        },
    }


def _price(
    prices: Prices,
    group: Sequence[FinishedCell],
    tokens: ItemTokens,
    training: Mapping[str, Any] | None,
    items: int,
) -> dict[str, Any]:
    """Return the prices of 1,000 items and of training once: on one's own hardware, and by tokens."""
    found: dict[str, Any] = {}
    if prices.local:
        rate = prices.local.per_hour / 3600
        found["local"] = {
            "per_1000": 1000 * rate * fmean(cell.cost.seconds for cell in group) / items,
            "training": rate * training["seconds"] if training else None,
        }
    if prices.tokens:
        found["tokens"] = price_tokens(prices, tokens, training, retrieved=group[0].pool_rows is not None)
    return found


def price_tokens(
    prices: Prices, tokens: ItemTokens, training: Mapping[str, Any] | None, *, retrieved: bool = False
) -> dict[str, float | None]:
    """Return what 1,000 items cost by tokens, `recomputed` or with the prefix `shared`, and training once.

    An item sends its prompt and writes its answer. What is trained is priced as such; of retrieved demonstrations
    only the template is shared. `once` is what the first item costs more where the prefix is shared. Training is None
    where nothing is trained or no price is given for it.
    """
    rates = prices.tokens
    assert rates
    tuned = training is not None
    into = rates.tuned_input if tuned and rates.tuned_input is not None else rates.input
    out = rates.tuned_output if tuned and rates.tuned_output is not None else rates.output
    cached = into if tuned or rates.cached_input is None else rates.cached_input
    prefix = tokens.template if retrieved else tokens.prefix
    whole = (tokens.prefix + tokens.input) * into + tokens.answer * out
    first = prefix * (into - cached)
    paid = sum(training["tokens"].values()) - training["tokens"]["validation"] if training else None
    return {
        "recomputed": 1000 * whole / 1e6,
        "shared": 1000 * (whole - first) / 1e6,
        "once": first / 1e6,
        "training": paid * rates.training / 1e6 if paid is not None and rates.training is not None else None,
    }


def count_money_break_even(groups: Groups, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int | None]]:
    """Return, per prompt condition, from how many items on LoRA on the whole pool costs less money, training included.

    The adapter is that of `count_break_even`. `local` is as run here, `recomputed` and `shared` are by tokens. None: no
    number of items pays. Where conditions differ in their template alone, it is part of their names.
    """
    trained = trained_on_pool(groups)
    if not trained:
        return {}
    known = {group[0].group: row for group, row in zip(groups, rows, strict=True)}
    tuned, conditions, counts = known[trained[0].group]["money"], prompted(groups), {}
    named = Counter(say_condition(group[0]) for group in conditions)
    for group in conditions:
        own, found = known[group[0].group]["money"], {}
        if "local" in own:
            prompt, adapter = (each["local"]["per_1000"] / 1000 for each in (own, tuned))
            found["local"] = break_even(tuned["local"]["training"], prompt, adapter)
        if "tokens" in own and tuned["tokens"]["training"] is not None:
            for way, once in (("recomputed", 0.0), ("shared", own["tokens"]["once"])):
                prompt, adapter = (each["tokens"][way] / 1000 for each in (own, tuned))
                found[way] = break_even(tuned["tokens"]["training"], prompt, adapter, once)
        name = say_condition(group[0])
        counts[f"{name} {group[0].condition.bound.template.name}" if named[name] > 1 else name] = found
    return counts


def _assumptions(groups: Groups, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the break-even counts of this run take for granted."""
    trained = [row for row, group in zip(rows, groups, strict=True) if row["training"] and group[0].whole]
    if not trained:
        return []
    most = max(trained, key=lambda row: row["training"]["rows"])["training"]
    passes = "1 pass" if most["epochs"] == 1 else f"{most['epochs']:.3g} passes"
    said = [
        f"Training is one adapter on {most['rows']:,} rows, {passes}, its validation included; it "
        "is merged, so its prompts cost what the base model's do. FLOP are what is counted, accuracies taken as equal.",
        "Recomputed: every prompt computes its demonstrations. Shared: they are computed once for all prompts.",
    ]
    if retrieved := [row for row in rows if row.get("retrieval")]:
        names = " and ".join(dict.fromkeys(str(row["retrieval"]) for row in retrieved))
        said.append(
            f"Retrieved ({names}): each prompt has demonstrations of its own, so that only the template is shared."
        )
    writing = [row for row in rows if row["tokens_per_item"]["generated"]]
    if writing:
        parts = ", ".join(f"{row['tokens_per_item']['generated']:.0f} by {row['method']}" for row in writing)
        said.append(f"Texts are written token by token for every item ({parts}), which no cache saves.")
    said.append(
        "Trials paid: the training side pays for all of its seeds and their tests, the prompting side for all of "
        "its draws; other settings that were tried before are nobody's."
    )
    return said
