"""Build content-free prompts for calibration: the same demonstrations, nothing to go by in the query."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from promptkit.data.record import Record
from promptkit.prompts.prompt import Prompt, build_prompt
from promptkit.templating.template import BoundTemplate

#: What stands in every field of a content-free query, in turn (Zhao et al. 2021, section 5); the last is PMI's.
CONTENT_FREE = ("N/A", "[MASK]", "")
#: Texts of random words of the task's domain (Fei et al. 2023, section 4).
DOMAIN_TEXTS = 20


class ContentFree:
    """Gives the prompts of one condition the content-free prompts that its readings need, each built once.

    The text fields of a query are replaced; fields of another kind and the choices stay. Random words are
    drawn per field from all `queries`, as often as they occur there, as many as a text of the field has on
    average; words are what white space separates. They depend on the seed and on the set of queries only.
    """

    def __init__(
        self,
        bound: BoundTemplate,
        queries: Sequence[Record],
        pool: Sequence[Record],
        *,
        readings: Collection[str],
        seed: int,
        chat: bool = False,
    ) -> None:
        self.bound, self.chat = bound, chat
        self.pool = {record.id: record for record in pool}
        self.texts = CONTENT_FREE if "pmi" in readings or "contextual" in readings else ()
        self.drawn = list(_draw_texts(queries, seed)) if "domain" in readings else []
        self.built: dict[object, tuple[tuple[Prompt, ...], tuple[Prompt, ...]]] = {}

    def attach(self, prompts: Sequence[Prompt], queries: Sequence[Record]) -> list[Prompt]:
        """Return the prompts of `queries` with their content-free prompts; raises TemplateError as `build_prompt`."""
        if not self.texts and not self.drawn:
            return list(prompts)
        return [self._attach(prompt, query) for prompt, query in zip(prompts, queries, strict=True)]

    def _attach(self, prompt: Prompt, query: Record) -> Prompt:
        kept = {name: value for name, value in query.fields.items() if not isinstance(value, str)}
        key = prompt.demonstration_ids, prompt.choices, query.choices, repr(kept)
        if key not in self.built:
            self.built[key] = self._build(prompt, query)
        content_free, domain = self.built[key]
        return replace(prompt, content_free=content_free, domain=domain)

    def _build(self, prompt: Prompt, query: Record) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
        demonstrations = [self.pool[id_] for id_ in prompt.demonstration_ids]

        def build(name: str, texts: dict[str, str]) -> Prompt:
            blank = replace(query, id=name, fields={**query.fields, **texts}, label=None, rationale=None)
            return build_prompt(self.bound, blank, demonstrations, chat=self.chat)

        names = [name for name, value in query.fields.items() if isinstance(value, str)]
        return (
            tuple(build(f"content-free {text!r}", dict.fromkeys(names, text)) for text in self.texts),
            tuple(
                build(f"domain text {number}", {name: texts.get(name, "") for name in names})
                for number, texts in enumerate(self.drawn)
            ),
        )


def _draw_texts(queries: Sequence[Record], seed: int) -> Iterator[dict[str, str]]:
    """Yield texts of random words, one per text field of the queries."""
    fields: dict[str, list[list[str]]] = {}
    for query in queries:
        for name, value in query.fields.items():
            if isinstance(value, str):
                fields.setdefault(name, []).append(value.split())
    words = {name: sorted(word for text in texts for word in text) for name, texts in fields.items()}
    for number in range(DOMAIN_TEXTS):
        drawn = {}
        for name, texts in fields.items():
            count = max(1, round(len(words[name]) / len(texts))) if words[name] else 0
            drawn[name] = " ".join(random.Random(f"{seed}:{name}:{number}").choices(words[name], k=count))
        yield drawn
