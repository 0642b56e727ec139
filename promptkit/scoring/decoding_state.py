"""Hold the tokens and text that a model has written so far, and decide where the writing ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from promptkit.models import Model
from promptkit.scoring.sampling import random_number

_CONTEXT = 8  # tokens of the prompt to decode with: some tokenizers drop the space of a first word
_BYTES_PER_CHARACTER = 4  # the most tokens that one character can take


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote: the text before the stop sequence, and the tokens it took to get there.

    `finished` is false where the token limit ended it.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool

    @property
    def tokens(self) -> int:
        """How many tokens were written."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is to be continued, until one of `stop` is in the text, an EOS, or `max_tokens` are written.

    `ends` are tokens that end the writing as an EOS does: what a chat template writes behind a turn.
    Where several texts are drawn after one prompt, `sample` tells their requests apart.
    """

    ids: tuple[int, ...]
    stop: tuple[str, ...]
    max_tokens: int
    sample: int = 0
    ends: tuple[int, ...] = ()


@dataclass(slots=True)
class DecodingState:
    """One request in the making; `key` is what its random numbers are made from, where tokens are drawn."""

    model: Model
    request: GenerationRequest
    ends: frozenset[int]
    key: bytes = b""
    ids: list[int] = field(default_factory=list)
    written: Written | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that the network is given until the writing is over: all but the last."""
        return (*self.request.ids, *self.ids)[:-1]

    @property
    def number(self) -> float:
        """The random number in [0, 1) that draws the next token."""
        return random_number(self.key, len(self.ids))

    def add(self, token: int) -> bool:
        """Take the next token; true once the writing is over, and `written` is there."""
        self.ids.append(token)
        if token in self.ends:
            self._finish(self.ids[:-1], finished=True)
        elif self._maybe_stopped() and self._find_stop(text := self.text(self.ids)) >= 0:
            self.written = Written(text[: self._find_stop(text)], tuple(self.ids), True)
        elif len(self.ids) >= self.request.max_tokens:
            self._finish(self.ids, finished=False)
        return self.written is not None

    def text(self, ids: Sequence[int]) -> str:
        """The text that `ids` add to the prompt."""
        context = self.request.ids[-_CONTEXT:]
        before = self.model.encoder.decode(context)
        both = self.model.encoder.decode([*context, *ids])
        return both[len(before) :] if both.startswith(before) else self.model.encoder.decode(ids)

    def _finish(self, ids: Sequence[int], *, finished: bool) -> None:
        self.written = Written(self.text(ids), tuple(self.ids), finished)

    def _maybe_stopped(self) -> bool:
        """Whether a stop sequence may be in what the last few tokens say: as many as the longest could take.

        Some tokenizers drop a space that the tokens begin with: whether it is there, only `text` says.
        """
        longest = max(map(len, self.request.stop), default=0)
        recent = self.model.encoder.decode(self.ids[-(longest * _BYTES_PER_CHARACTER + 2) :])
        return any(stop.lstrip(" ") in recent for stop in self.request.stop)

    def _find_stop(self, text: str) -> int:
        return min((at for stop in self.request.stop if (at := text.find(stop)) >= 0), default=-1)


def find_ends(model: Model, stop: Sequence[str] = (), ends: Sequence[int] = ()) -> frozenset[int]:
    """Return the tokens that end the writing: every EOS, `ends`, and stops that are one special token."""
    settings = getattr(model.network, "generation_config", None)
    found = [model.tokenizer.eos_token_id, getattr(settings, "eos_token_id", None)]
    known = {end for ids in found if ids is not None for end in (ids if isinstance(ids, list) else [ids])}
    special = dict(zip(model.tokenizer.all_special_tokens, model.tokenizer.all_special_ids, strict=True))
    return frozenset(known | {*ends} | {special[text] for text in stop if text in special})
