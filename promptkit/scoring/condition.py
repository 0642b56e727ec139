"""Name one way of asking: a method, a template that fits the task, and a draw of k demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from promptkit.building.build import Demonstrations, render_prompts
from promptkit.data.record import Record
from promptkit.demonstrations import Draw, asks_for_probabilities, asks_for_vectors
from promptkit.demonstrations.corruption import GOLD, VALID, Rationales, parse_labels, relabel
from promptkit.prompts.prompt import SYSTEM, TURN, Prompt
from promptkit.scoring.sampling import Sampling
from promptkit.templating.template import BoundTemplate

if TYPE_CHECKING:
    from promptkit.models import Model

#: The encoder of a machine without sentence-transformers.
HIDDEN = "hidden states"


@dataclass(frozen=True)
class Condition:
    """One way of asking: a method, a template that fits the task, and a draw of k demonstrations.

    `readings` are the scores and calibrations to be told from its cell, for which `seed` draws words. `sampling`
    says how several texts per prompt are drawn; None for one, the most likely. `demo_labels` and `rationale` name
    what demonstrations show in place of their own labels and rationales (see `promptkit.demonstrations.corruption`).
    """

    method: str
    bound: BoundTemplate
    k: int = 0
    draw: Draw | None = None
    chat: bool = False
    readings: tuple[str, ...] = ()
    seed: int = 0
    sampling: Sampling | None = None
    demo_labels: str = GOLD
    rationale: str = VALID

    def spec(self) -> dict[str, Any]:
        """Return what tells this condition from every other, as JSON for a cell's key."""
        asked: dict[str, Any] = {"readings": list(self.readings)} if self.readings else {}
        if "domain" in self.readings:
            asked["domain_seed"] = self.seed
        if self.sampling:
            asked["sampling"] = asdict(self.sampling)
        if self.demo_labels != GOLD:
            asked["demo_labels"] = self.demo_labels
        if self.rationale != VALID:
            asked["rationale"] = self.rationale
        if self.draw and asks_for_vectors(self.draw.selection):
            asked["encoder"] = find_encoder()
        if self.chat:
            asked["join"] = TURN  # cells from before it was one joined answers as plain prompts do
            if self.bound.system != SYSTEM[0]:
                asked["system"] = self.bound.system
        return {
            **asked,
            "method": self.method,
            "template": self.bound.template.name,
            "template_hash": self.bound.template.hash,
            "task": self.bound.task.name,
            "task_hash": self.bound.task.hash,
            "task_content": self.bound.task.content_hash,
            "k": self.k,
            "draw": asdict(self.draw) if self.draw else None,
            "chat": self.chat,
        }

    def prompts(
        self, queries: Sequence[Record], pool: Sequence[Record], keep: int | None = None, model: Model | None = None
    ) -> list[Prompt]:
        """Return one prompt per query, with k demonstrations out of `pool` or, of those, the first `keep`.

        Selections that ask a model ask `model`.
        """
        if self.draw is None:
            return list(render_prompts(self.bound, queries, chat=self.chat))
        helpers = ask_model(self.draw.selection, model, self.bound, chat=self.chat) if model else {}
        chosen = Demonstrations(pool, self.draw, **helpers)
        reasons = Rationales(self.rationale, pool, seed=self.draw.seed)

        def show(query: Record, k: int) -> tuple[Record, ...]:
            return reasons(self.relabel(chosen(query, k, keep)), query)

        return list(render_prompts(self.bound, queries, show, self.k, chat=self.chat))

    def relabel(self, demonstrations: Sequence[Record]) -> tuple[Record, ...]:
        """Return the demonstrations with the labels that this condition shows."""
        labels = parse_labels(self.demo_labels)
        return relabel(demonstrations, labels, self.bound, seed=self.draw.seed if self.draw else 0)


def ask_model(selection: str, model: Model, bound: BoundTemplate, *, chat: bool = False) -> dict[str, Any]:
    """Return what a selection that asks a model is given: vectors of texts, or probabilities of choices.

    Vectors are those of a sentence encoder where sentence-transformers is installed, else the model's own hidden
    states. Nothing for the other selections.
    """
    if asks_for_vectors(selection) and find_encoder() == HIDDEN:
        from promptkit.models.embedding import hidden_states

        return {"embed": hidden_states(model)}
    if asks_for_probabilities(selection):
        from promptkit.scoring import score
        from promptkit.scoring.order_search import ChoiceProbabilities

        return {"probabilities": ChoiceProbabilities(bound, partial(score, model, chat=chat), chat=chat)}
    return {}


def find_encoder() -> str:
    """Return what turns texts into vectors here: the name of a sentence encoder, or `HIDDEN`."""
    from promptkit.demonstrations.sentence_encoder import ENCODER

    return ENCODER if find_spec("sentence_transformers") else HIDDEN
