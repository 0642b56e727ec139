"""Search orders of demonstrations by how sure they make a model: GlobalE and LocalE of Lu et al. 2022.

The model itself writes the queries that orders are tried on, so no labelled record is spent. What is asked of it are
two callables; `ProbingWriter` and `ChoiceProbabilities` are those for a model and a scorer. What a study's axis of
orders names, and its searches kept as cells, is `promptkit/experiments/order_axis.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.demonstrations.orders import permute
from promptkit.demonstrations.pool import Asked, Probabilities, as_query
from promptkit.demonstrations.uncertainty import entropy
from promptkit.errors import SelectionError, TemplateError, WindowError, nearest
from promptkit.prompts.prompt import Prompt, build_prompt, render_text
from promptkit.templating.template import BoundTemplate

if TYPE_CHECKING:
    from promptkit.models import Model

Distributions = Sequence[Sequence[float]]
#: Demonstrations in several orders into the queries that the model writes after them, all together.
WriteQueries = Callable[[Sequence[tuple[Record, ...]]], Sequence[Record]]
#: Probabilities [N, V] of N queries' choices into nats: how evenly an order lets the model answer.
Measure = Callable[[Distributions], float]


class ScoredOrder(Protocol):
    """What a scorer returns: per prompt and choice, nats."""

    @property
    def logprobs(self) -> Sequence[Sequence[float]]:
        """Log-likelihoods, one row per prompt."""


@dataclass(frozen=True, slots=True)
class RankedOrder:
    """The number of a permutation and what the search measured of it, in nats."""

    order: int
    entropy: float


def global_entropy(probabilities: Distributions) -> float:
    """Return GlobalE: the entropy in nats of the labels that N queries get, from probabilities [N, V].

    Each query counts for its most probable choice, the first of equals (Lu et al. 2022).
    Raises SelectionError without queries.
    """
    _some(probabilities)
    counts = Counter(list(row).index(max(row, default=0.0)) if row else -1 for row in probabilities)
    if -1 in counts:
        raise SelectionError("a probing query has no choices; order search needs a task with labels")
    return entropy([count / len(probabilities) for count in counts.values()])


def local_entropy(probabilities: Distributions) -> float:
    """Return LocalE: the mean over N queries of the entropy in nats of their choices, from probabilities [N, V].

    Lu et al. 2022. Raises SelectionError without queries.
    """
    _some(probabilities)
    return math.fsum(map(entropy, probabilities)) / len(probabilities)


SEARCHES: dict[str, Measure] = {"global": global_entropy, "local": local_entropy}


def rank_orders(probabilities: Mapping[int, Distributions], search: str = "global") -> tuple[RankedOrder, ...]:
    """Return orders by their entropy, highest first; of equals, to nine places, the smaller number.

    `probabilities` maps the number of an order to what the model says after it, [N, V]. `search` is "global" or
    "local". Lu et al. keep the first 4 of 24. Raises SelectionError for another search.
    """
    if search not in SEARCHES:
        known = ", ".join(SEARCHES)
        raise SelectionError(f"unknown order search {search!r}; known: {known}.{nearest(search, SEARCHES)}")
    ranked = [RankedOrder(order, round(SEARCHES[search](found), 9)) for order, found in probabilities.items()]
    return tuple(sorted(ranked, key=lambda each: (-each.entropy, each.order)))


def search_orders(
    chosen: Sequence[Record],
    orders: Iterable[int],
    *,
    write_queries: WriteQueries,
    probabilities: Probabilities,
    search: str = "global",
) -> tuple[RankedOrder, ...]:
    """Return orders of `chosen` by GlobalE or LocalE on what the model itself writes, best first.

    `orders` are numbers of permutations. `write_queries` is called once, with the demonstrations in all the orders;
    what it returns, less any label, is asked after every one of them in one call of `probabilities`.
    Raises SelectionError where it returns nothing, for an order that does not exist and for an unknown search.
    """
    sequences = {order: permute(chosen, order) for order in orders}
    queries = [as_query(query) for query in write_queries(list(sequences.values()))]
    if not queries:
        raise SelectionError("the model wrote no query to try orders on; raise `samples`, or try another template")
    asked: list[Asked] = [(query, shown) for shown in sequences.values() for query in queries]
    answers, count = probabilities(asked), len(queries)
    if len(answers) != len(asked):
        raise SelectionError(f"`probabilities` gave {len(answers)} answers to {len(asked)} questions; one each is due")
    found = {order: answers[place * count : (place + 1) * count] for place, order in enumerate(sequences)}
    return rank_orders(found, search)


class ChoiceProbabilities:
    """Queries with demonstrations into the probabilities of their choices: what `mdl`, `entropy` and searches ask.

    `score` takes prompts and returns a table with log-likelihoods, as `partial(promptkit.score, model)` does.
    """

    def __init__(
        self, bound: BoundTemplate, score: Callable[[list[Prompt]], ScoredOrder], *, chat: bool = False
    ) -> None:
        self._bound, self._score, self._chat = bound, score, chat

    def __call__(self, asked: Sequence[Asked]) -> list[list[float]]:
        """Return a distribution per query, its choices' likelihoods divided by their sum."""
        prompts = [build_prompt(self._bound, as_query(query), shown, chat=self._chat) for query, shown in asked]
        return [_normalize(row) for row in self._score(prompts).logprobs]


def _normalize(logprobs: Sequence[float]) -> list[float]:
    highest = max(logprobs, default=0.0)
    likelihoods = [math.exp(value - highest) for value in logprobs]
    return [value / math.fsum(likelihoods) for value in likelihoods]


def _some(probabilities: Distributions) -> None:
    if not len(probabilities):
        raise SelectionError("no probing query was answered; one or more are needed to rank orders")


@dataclass(frozen=True)
class ProbingWriter:
    """What a model writes as the next query after demonstrations: the probing set of Lu et al. 2022.

    The template's text is given and the model writes the fields, one after the other, each up to the end of its
    line; so what it writes always fits the template, where Lu et al. let it write on and read back what fits. It
    writes `samples` queries after every order, drawn with `temperature` out of the `top_k` likeliest tokens, no
    `block` tokens twice (settings of the paper and its code). A query in which a field stays empty is left out. What
    is written is a pure function of the model, the text before it and `seed`.

    Raises TemplateError where the template does not show its fields as they are, or the task has no fixed labels,
    and WindowError where demonstrations leave no room.
    """

    model: Model
    bound: BoundTemplate
    samples: int = 1
    seed: int = 0
    temperature: float = 2.0
    top_k: int = 20
    block: int = 3
    max_tokens: int = 128

    def __call__(self, sequences: Sequence[tuple[Record, ...]]) -> list[Record]:
        """Return the queries written after every one of the sequences of demonstrations, without labels."""
        parts = input_parts(self.bound)
        written: list[Record] = []
        for shown in sequences:
            head = render_text(self.bound, _blank(self.bound), shown)
            head = head[: len(head) - len(self.bound.input(_blank(self.bound)))]
            for sample in range(self.samples):
                if fields := self._write_fields(head, parts, sample):
                    written.append(Record(f"probe-{len(written)}", fields, None))
        return written

    def _write_fields(self, text: str, parts: Sequence[tuple[str, str]], sample: int) -> dict[str, str] | None:
        fields: dict[str, str] = {}
        for literal, name in parts:
            text += literal
            if name not in fields:
                bare = text.rstrip(" ")  # the space before a word belongs to its token
                fields[name] = self._write(bare or text, sample).partition("\n")[0].strip()
            if not fields[name]:
                return None
            text += fields[name]
        return fields

    def _write(self, text: str, sample: int) -> str:
        import torch
        from transformers import StoppingCriteriaList

        from promptkit.models import check_ids
        from promptkit.storage.libraries import quiet_transformers

        model, network = self.model, self.model.network
        ids = model.encoder.encode(text) or [model.encoder.opening_token()]
        check_ids(model, [ids])
        room = min(self.max_tokens, model.window - len(ids))
        if room < 1:
            raise WindowError(
                f"{len(ids)} tokens of demonstrations leave no room in the window of {model.window} tokens of "
                f"{model.name!r} to write a query; lower -k"
            )

        def is_line(written: torch.Tensor, scores: Any) -> torch.Tensor:
            return torch.tensor(["\n" in model.encoder.decode(written[0, len(ids) :].tolist())], device=written.device)

        end = model.tokenizer.eos_token_id
        given = torch.tensor([ids], device=model.device)
        devices = [given.device] if given.device.type == "cuda" else []
        training = network.training
        network.eval()
        try:
            with torch.inference_mode(), quiet_transformers(), torch.random.fork_rng(devices):
                torch.manual_seed(int.from_bytes(hash_order(self.seed, f"{sample}:{text}")[:7], "big"))
                generate: Any = network.generate
                ids_out = generate(
                    input_ids=given,
                    attention_mask=torch.ones_like(given),
                    do_sample=True,
                    temperature=self.temperature,
                    top_k=self.top_k,
                    no_repeat_ngram_size=self.block,
                    max_new_tokens=room,
                    stopping_criteria=StoppingCriteriaList([is_line]),
                    pad_token_id=0 if end is None else end,
                )
        finally:
            network.train(training)
        return model.encoder.decode(ids_out[0, len(ids) :].tolist())


_MARK = re.compile("\ue000(\\d+)\ue001")  # stands for a field: private characters, which no template handles


def input_parts(bound: BoundTemplate) -> list[tuple[str, str]]:
    """Return what a template's input is made of: (text, name of the field that follows it), in their order.

    The text behind the last field is left out. Raises TemplateError where a field does not appear as it is, and
    where the task has no fixed labels.
    """
    where = f"template {bound.template.name!r}"
    if bound.task.labels is None:
        raise TemplateError(f"{where}: order search needs a task with fixed labels; task {bound.task.name!r} has none")
    names = _fields(bound)
    marks = {name: f"\ue000{place}\ue001" for place, name in enumerate(names)}
    pieces = _MARK.split(bound.input(replace(_blank(bound), fields=marks)))
    parts = [(literal, names[int(place)]) for literal, place in zip(pieces[::2], pieces[1::2], strict=False)]
    missing = [name for name in names if name not in {field for _, field in parts}]
    if missing:
        raise TemplateError(
            f"{where}: the field {missing[0]!r} does not appear as it is, so the model cannot write it; use a template "
            "that shows its fields unchanged"
        )
    return parts


def _blank(bound: BoundTemplate) -> Record:
    """Return a query whose fields are all empty."""
    return Record("probe", dict.fromkeys(_fields(bound), ""), None)


def _fields(bound: BoundTemplate) -> list[str]:
    return [name for name in bound.template.parts["input"].arguments if name != "labels"]
