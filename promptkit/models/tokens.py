"""Encode text as token ids: special tokens in front exactly once, and the join of a prompt and its completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, takewhile
from typing import TYPE_CHECKING

from promptkit.errors import DataError, ModelError
from promptkit.models.chat import Chat
from promptkit.models.pieces import find_splitter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from promptkit.prompts.prompt import Message

_REMEMBERED = 2**20  # tokens: the same prompts are measured, then scored, and share most of their lines


@dataclass(frozen=True, slots=True)
class Joined:
    """The token ids of a prompt and its completion from one encoding; `ids[start:]` is scored or trained.

    `spans` is true where the completion changed how the prompt itself is cut into tokens, because a token
    crosses the join. `start` then lies before the join: at the first token the two encodings do not share.
    """

    ids: tuple[int, ...]
    start: int
    spans: bool


class Encoder:
    """Text to token ids with one tokenizer, the same ids for scoring as for training.

    `before` holds the special tokens that this tokenizer puts in front of text (BOS, [CLS]; often none).
    Nothing is ever appended: an EOS or [SEP] between a prompt and its continuation would end the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.before = _find_before(tokenizer)
        self._split = find_splitter(tokenizer)
        self._known: dict[str, list[int]] = {}
        self._known_tokens = 0

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Token ids of `text` behind the tokenizer's leading special tokens.

        They are there exactly once: a text that begins with the BOS string itself gets no second one, and
        text from a chat template (`chat=True`) already carries what its template wants.
        """
        return self.encode_all([text], chat=chat)[0]

    def encode_all(self, texts: Sequence[str], *, chat: bool = False) -> list[list[int]]:
        """`encode` for many texts at once, what they share encoded once; what is recent is remembered.

        Equal texts have one list among them.
        """
        split, known = self._split, self._known
        pieces = {text: split(text) if split else [text] for text in dict.fromkeys(texts)}
        if new := [piece for piece in dict.fromkeys(chain.from_iterable(pieces.values())) if piece not in known]:
            encoded = self.tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"]
            known.update(zip(new, encoded, strict=True))
            self._known_tokens += sum(map(len, encoded))
        found = {text: list(chain.from_iterable([known[piece] for piece in each])) for text, each in pieces.items()}
        if self._known_tokens > _REMEMBERED:
            known.clear()
            self._known_tokens = 0
        if not chat:
            found = {text: self._with_before(ids) for text, ids in found.items()}
        return [found[text] for text in texts]

    def join(self, prefix: str, completion: str, *, chat: bool = False) -> Joined:
        """One joint encoding of `prefix + completion`, and where the completion starts in it.

        `start` counts the leading tokens shared with the encoding of `prefix` alone, so a token that spans
        the join belongs to the completion. At least one token is scored and at least one stands before it:
        without any, BOS (else EOS) is put in front.

        Raises DataError for an empty completion, ModelError where a token is needed in front and the
        tokenizer has neither BOS nor EOS.
        """
        return self.join_all([(prefix, completion)], chat=chat)[0]

    def join_all(self, rows: Sequence[tuple[str, str]], *, chat: bool = False) -> list[Joined]:
        """`join` for many (prefix, completion) rows, each distinct text encoded once."""
        for prefix, completion in rows:
            if not completion:
                raise DataError(f"the completion of prompt {prefix[-40:]!r} is empty: expected at least one character")
        whole = self.encode_all([prefix + completion for prefix, completion in rows], chat=chat)
        alone = self.encode_all([prefix for prefix, _ in rows], chat=chat)
        return [self._joined(ids, prefix_ids) for ids, prefix_ids in zip(whole, alone, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out, spaces as they are."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @cached_property
    def chat(self) -> Chat:
        """The tokenizer's own chat template. Raises ModelError where there is none, or it cannot be read."""
        return Chat(self.tokenizer)

    def chat_prefix(self, messages: Sequence[Message]) -> str:
        """The tokenizer's own rendering of `messages` up to where the assistant's answer begins.

        What the template opens every answer with (an empty block of thoughts) is part of it. Raises ModelError where
        the tokenizer has no chat template, or its template refuses these messages or does not print them whole.
        """
        return self.chat.prefix(messages)

    def chat_completion(self, messages: Sequence[Message], target: str) -> str:
        """What the chat template makes of `target` as the assistant's turn after `chat_prefix(messages)`.

        The white space at its beginning, which joins it to a plain prompt, and the end of the turn are left out. A
        template that trims turns trims the target here too.
        """
        return self.chat.answer(messages, target)

    def answer_end(self, messages: Sequence[Message] = ()) -> tuple[int, ...]:
        """The token that ends an answer: the EOS or, after chat messages, what ends the assistant's turn; or none.

        That is the first token of a vocabulary's added ones, whatever else says that it is special, which the template
        writes behind the answer.
        """
        ids = (self.tokenizer.eos_token_id,)
        if messages:
            marks = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
            ids = (*(token for token in self.encode(self.chat.tail(messages), chat=True) if token in marks), *ids)
        return tuple(token for token in ids if token is not None)[:1]

    def _with_before(self, ids: list[int]) -> list[int]:
        there = tuple(ids[: len(self.before)]) == self.before
        return ids if there else [*self.before, *ids]

    def _joined(self, ids: list[int], prefix_ids: list[int]) -> Joined:
        if not ids:
            raise DataError("neither the prompt nor its completion has a character that the tokenizer knows")
        start = min(count_shared(ids, prefix_ids), len(ids) - 1)
        spans = start < len(prefix_ids)
        if start > 0:
            return Joined(tuple(ids), start, spans)
        return Joined((self.opening_token(), *ids), 1, spans)

    def opening_token(self) -> int:
        """The token that stands before the first one where a text has none in front: BOS, else EOS."""
        tokenizer = self.tokenizer
        for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} has neither a BOS nor an EOS token to stand before "
            "the first scored token: give the prompt some text, or set bos_token in tokenizer_config.json"
        )


def count_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the number of leading tokens that two sequences have in common."""
    # by halving, since comparing slices is fast and prompts are long
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _find_before(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The special tokens in front of text: what precedes a word when the tokenizer is asked for them."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start])
    special = set(tokenizer.all_special_ids)
    return tuple(takewhile(special.__contains__, full))
