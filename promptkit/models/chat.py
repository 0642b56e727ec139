"""Render chat turns through a model's own template, and refuse a template that loses or changes what they say.

A chat template is a file of somebody else's: it runs in the sandbox that templates run in, its clock stands still, and
before its first use it is tried on turns whose contents are known, which must be found again in what it renders.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import SecurityError

from promptkit.errors import ModelError, TemplateError
from promptkit.models.chat_sandbox import ChatTemplate
from promptkit.prompts.prompt import Message, trim_answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The day and hour that every template is told it is: a prompt, and its score, must not depend on when it is made.
CLOCK = datetime.datetime(2024, 7, 26, 12, 0, 0)
_OTHER_CLOCK = datetime.datetime(2001, 11, 9, 23, 41, 17)
#: The settings of templates that would otherwise open a block of thoughts.
_SETTINGS = {"enable_thinking": False}
_SECONDS = 2.0  # for one prompt: the check renders some, and a template that is sound takes a thousandth of that
_PLAIN = "use plain prompts (--plain)"
_THOUGHTS = r"(?:think|thought|reason|reflection|scratchpad|analysis)"
_OPENING = re.compile(
    rf"<(?!/|\|?/?end)[^<>\s]*{_THOUGHTS}[^<>\s]*>|\[THINK\]|<\|channel>thought|<\|channel\|>analysis", re.IGNORECASE
)
_CLOSING = re.compile(rf"<(?:/|\|?/?end)[^<>\s]*{_THOUGHTS}[^<>\s]*>|\[/THINK\]|<channel\|>|<\|end\|>", re.IGNORECASE)
#: What a content may hold and a template might trim, collapse, escape or split.
_WORDS = "Turn {number}: a <b> & 'b' \"c\", {{{{ d }}}}  100 %\n\n\te é 🙂 \\n [f] end {number}."


class _TooMuchError(ModelError):
    """A chat template does what the sandbox refuses, or too much of it: nothing is tried with it any more."""


@dataclass(frozen=True, slots=True)
class TurnPlace:
    """Where an answer stands behind turns of certain roles, as found by trying the template on known contents.

    `turns` are those contents; `head` and `tail` stand around an answer to them. `opening` is what the template puts
    between the generation prompt and an answer: part of the prompt, since it is the same for every answer.
    """

    turns: tuple[Message, ...]
    head: str
    tail: str
    opening: str


class Chat:
    """Renders turns by a tokenizer's own chat template. `notes` say what a reader of its scores should know.

    Every error is a ModelError of one line with the tokenizer's name and the way out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = str(tokenizer.name_or_path or type(tokenizer).__name__)
        self.notes: tuple[str, ...] = ()
        self._clock = CLOCK
        self._special = {name: str(text) for name, text in tokenizer.special_tokens_map.items() if text is not None}
        self._template = self._compile(_choose_template(tokenizer, self.name))
        self._parts = False  # whether contents are given as lists of parts
        self._places: dict[tuple[str, ...], TurnPlace] = {}
        self._answers: dict[tuple[tuple[str, ...], str], str] = {}

    def prefix(self, messages: Sequence[Message]) -> str:
        """Return everything up to where the first character of the assistant's answer stands.

        Raises ModelError where the template refuses these turns, or does not print their contents whole.
        """
        place = self._place(_roles(messages))
        text = self._render(messages, answering=True)
        if (lost := _find_lost(messages, text)) is not None:
            raise ModelError(f"{self._says(lost, messages)}; change that text, or {_PLAIN}")
        return text + place.opening

    def answer(self, messages: Sequence[Message], text: str) -> str:
        """Return an answer as it stands behind `prefix(messages)`, in the form that the template gives its turn.

        White space at its beginning is left out: in a plain prompt that joins it to the input, and a turn has none.
        The end of the turn is left out too.
        """
        roles = _roles(messages)
        key = roles, text
        if key not in self._answers:
            place, content = self._place(roles), trim_answer(text)
            turn = self._render([*place.turns, Message("assistant", content)], answering=False)
            found = turn[len(place.head) : len(turn) - len(place.tail)]
            framed = turn.startswith(place.head) and turn.endswith(place.tail)
            if not framed or found.strip() != content.strip() or not found:
                raise ModelError(
                    f"{self._who} does not print the answer {_brief(content)} as it is; change that text, or {_PLAIN}"
                )
            self._answers[key] = found
        return self._answers[key]

    def tail(self, messages: Sequence[Message]) -> str:
        """Return what the template writes behind an answer."""
        return self._place(_roles(messages)).tail

    @property
    def _who(self) -> str:
        return f"the chat template of {self.name!r}"

    def _place(self, roles: tuple[str, ...]) -> TurnPlace:
        if roles not in self._places:
            self._places[roles] = self._check(roles)
        return self._places[roles]

    def _check(self, roles: tuple[str, ...]) -> TurnPlace:
        """Return where answers stand behind turns of these roles; raises ModelError for what is lost."""
        try:
            return self._find_place(roles)
        except _TooMuchError:
            raise
        except ModelError as error:
            if not self._parts and not self._places and (place := self._try_parts(roles)):
                return place
            if "system" in roles and self._works(tuple(role for role in roles if role != "system")):
                raise ModelError(
                    f"{self._who} refuses or drops the system turn, which holds the instruction: give --system user "
                    f"(system='user') to put it in front of the first user turn, or {_PLAIN}"
                ) from error
            raise

    def _try_parts(self, roles: tuple[str, ...]) -> TurnPlace | None:
        """Return the place where contents are given as lists of parts, as some templates want them; None if neither."""
        self._parts = True
        try:
            return self._find_place(roles)
        except ModelError:
            self._parts = False
            return None

    def _works(self, roles: tuple[str, ...]) -> bool:
        try:
            self._find_place(roles)
        except ModelError:
            return False
        return True

    def _find_place(self, roles: tuple[str, ...]) -> TurnPlace:
        turns = tuple(Message(role, _WORDS.format(number=number)) for number, role in enumerate(roles, 1))
        prompt = self._render(turns, answering=True)
        self._check_turns(turns, prompt)
        self._check_clock(turns, prompt)
        answers = [_WORDS.format(number=number) for number in ("one", "two")]
        first, second = (self._render([*turns, Message("assistant", each)], answering=False) for each in answers)
        head, found, tail = first.rpartition(answers[0])
        if not found or second != head + answers[1] + tail:
            raise ModelError(f"{self._who} does not print the assistant's answer whole; {_PLAIN}")
        _, asked, before = head.rpartition(turns[-1].content)
        if not asked:
            raise ModelError(f"{self._says(len(turns) - 1, turns)}; {_PLAIN}")
        return TurnPlace(turns, head, tail, self._find_opening(prompt.rpartition(turns[-1].content)[2], before))

    def _find_opening(self, behind: str, before: str) -> str:
        """Return what stands between the generation prompt and an answer; raises ModelError for an open thought.

        `behind` is what follows the last turn in a prompt, `before` what is there between it and an answer.
        """
        extra = behind[len(before.rstrip()) :] if behind.startswith(before.rstrip()) else None
        if before.startswith(behind):
            opening = before[len(behind) :]
        elif extra is not None and (not extra.strip() or _closes(extra)):
            opening = ""
        elif extra is not None:
            raise ModelError(
                f"{self._who} ends its generation prompt in {_brief(extra.strip())}, which its own answers do not "
                f"have: a label would be scored in its place; {_PLAIN}, or a model that answers without thinking first"
            )
        else:
            raise ModelError(
                f"{self._who} has no place for an answer: what it writes before one, {_brief(behind.strip())}, is not "
                f"its generation prompt; {_PLAIN}"
            )
        if len(_OPENING.findall(behind + opening)) > len(_CLOSING.findall(behind + opening)):
            raise ModelError(
                f"{self._who} opens a block of thoughts before the answer and does not close it: a label would be "
                f"scored as the first of the thoughts; {_PLAIN}, or a model that answers without thinking first"
            )
        return opening

    def _check_turns(self, turns: Sequence[Message], text: str) -> None:
        if (lost := _find_lost(turns, text)) is not None:
            raise ModelError(f"{self._says(lost, turns)}; {_PLAIN}")
        asked = [turn.content for turn in turns if turn.role != "system"]
        for one, other in pairwise(asked):
            if not text[text.index(one) + len(one) : text.index(other)].strip():
                raise ModelError(f"{self._who} puts nothing between one turn and the next; {_PLAIN}")

    def _check_clock(self, turns: Sequence[Message], prompt: str) -> None:
        if self._render(turns, answering=True) != prompt:
            raise ModelError(f"{self._who} renders the same turns differently each time; {_PLAIN}")
        if not self.notes and self._render(turns, answering=True, clock=_OTHER_CLOCK) != prompt:
            day = f"{CLOCK.day} {CLOCK:%B %Y}"
            self.notes = (f"{self._who} prints the date: it is always told {day}, so that scores stay the same",)

    def _says(self, lost: int, turns: Sequence[Message]) -> str:
        role = turns[lost].role
        return (
            f"{self._who} does not print turn {lost + 1} ({role}) whole and in its place: {_brief(turns[lost].content)}"
        )

    def _compile(self, source: str) -> ChatTemplate:
        try:
            return ChatTemplate(source, f"model {self.name!r}", now=lambda: self._clock)
        except TemplateError as error:
            raise ModelError(f"{error}; {_PLAIN}") from error

    def _render(self, messages: Sequence[Message], *, answering: bool, clock: datetime.datetime = CLOCK) -> str:
        self._clock = clock
        turns = [{"role": message.role, "content": self._content(message)} for message in messages]
        began = time.thread_time()
        try:
            text = self._template.render(turns, add_generation_prompt=answering, **self._special, **_SETTINGS)
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            kind = _TooMuchError if isinstance(error.__cause__, SecurityError) else ModelError
            raise kind(f"{error} (asked for the turns {roles}); {_PLAIN}") from error
        if time.thread_time() - began > _SECONDS:
            raise _TooMuchError(f"{self._who} takes more than {_SECONDS:g} s for one prompt; {_PLAIN}")
        return text

    def _content(self, message: Message) -> Any:
        return [{"type": "text", "text": message.content}] if self._parts else message.content


def _choose_template(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """Return the source of the template; of several, that named `default`."""
    source: Any = getattr(tokenizer, "chat_template", None)
    if isinstance(source, Mapping):
        if "default" not in source:
            names = ", ".join(sorted(map(str, source))) or "none"
            raise ModelError(f"the tokenizer {name!r} has no chat template named 'default' (it has: {names}); {_PLAIN}")
        source = source["default"]
    if not source:
        raise ModelError(f"the tokenizer {name!r} has no chat template: {_PLAIN}, or a model whose tokenizer has one")
    return str(source)


def _roles(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(message.role for message in messages)


def _find_lost(messages: Sequence[Message], text: str) -> int | None:
    """Return the index of the first turn whose content is not in `text` behind the one before; None if all are.

    White space at its ends is left to the template; a system turn may stand anywhere, as some put it last.
    """
    end = 0
    for index, message in enumerate(messages):
        content = message.content.strip()
        place = text.find(content, 0 if message.role == "system" else end)
        if place < 0:
            return index
        end = end if message.role == "system" else place + len(content)
    return None


def _closes(text: str) -> bool:
    """Whether a text is a block of thoughts that is closed, or the end of one."""
    closings = list(_CLOSING.finditer(text))
    return bool(closings) and not text[closings[-1].end() :].strip()


def _brief(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
