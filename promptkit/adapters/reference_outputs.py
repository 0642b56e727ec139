"""Record what an adapter answers when it is saved, and ask it again wherever it is loaded."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from promptkit.data.records import hash_order
from promptkit.prompts.prompt import Prompt, message_rows, prompt_from_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from promptkit.models import Model
    from promptkit.prompts.pair import Pair

#: How many training rows are asked.
PROBES = 32
#: Nats by which rounding may move a score, by number format. A choice that led by less has not changed its label.
ROUNDING = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 2e-1}
#: The sets of choices that are looked at before a training.
_LOOKED_AT = 1000
#: Nats per token by which a free text's score may move.
MOVED = 0.1
#: The packages whose releases may change what an adapter says.
PACKAGES = ("torch", "transformers", "peft", "tokenizers")


#: A prompt, its choices' log-likelihoods (nats) and how many tokens its first choice has.
_Scored = tuple[Prompt, tuple[float, ...], int]


class Turn(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    content: str


class ReferenceOutput(BaseModel):
    """A training row and what the adapter said to it: the log-likelihood of each choice, nats to six places.

    A row whose completion is none of its choices (free text, a chain of thought) has the completion as its one choice.
    `messages` are the chat turns of an adapter that was trained on such, which is asked with them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    messages: tuple[Turn, ...] = ()
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    logprobs: tuple[float, ...]

    @field_validator("logprobs")
    @classmethod
    def _one_per_choice(cls, logprobs: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        choices = info.data.get("choices", logprobs)  # where those are wrong, they are what is reported
        if len(logprobs) != len(choices):
            raise ValueError(f"expected one for each of the {len(choices)} choices")
        return logprobs

    @property
    def chosen(self) -> int:
        """The index of the most likely choice, the first of equals."""
        return self.logprobs.index(max(self.logprobs))


class ReferenceOutputs(BaseModel):
    """The probes of an adapter, and the number format and the kind of device they were scored on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    device: str
    rows: tuple[ReferenceOutput, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of asking probes again: `probes` is what the model says now.

    `flips` says of each probe whose label changed which and how; of a free text, that its score moved by more than
    `MOVED`. `largest` is the most that any score moved, in nats.
    """

    probes: ReferenceOutputs
    flips: tuple[str, ...]
    largest: float

    @property
    def count(self) -> int:
        """How many probes were asked."""
        return len(self.probes.rows)

    def __str__(self) -> str:
        """Return what there is to say, in words that follow the adapter's name."""
        moved = f"the largest change of a score is {self.largest:.3g} nats"
        if not self.flips:
            return f"none of its {self.count} probe rows changed its answer ({moved})"
        return f"{len(self.flips)} of its {self.count} probe rows changed their answer, as {self.flips[0]} ({moved})"


def choose_probes(pairs: Iterable[Pair], count: int = PROBES) -> list[Pair]:
    """Return `count` of the pairs or fewer, as evenly over their labels as can be, and no text twice.

    The choice depends on the texts and not on their order. Free texts count as one label, those of several tasks or
    templates as several.
    """
    groups: dict[tuple[str, str, str], dict[bytes, Pair]] = {}
    for pair in pairs:
        label = pair.completion if pair.completion in pair.choices else ""
        key = hash_order("probes", f"{pair.prompt}\0{pair.completion}\0{message_rows(pair.messages)}")
        groups.setdefault((pair.task, pair.template, label), {})[key] = pair
    ranked = [
        (place, key, pair)
        for group in groups.values()
        for place, (key, pair) in enumerate(sorted(group.items(), key=lambda item: item[0]))
    ]
    return [pair for *_, pair in sorted(ranked, key=lambda each: each[:2])[:count]]


def record_reference_outputs(
    model: Model, pairs: Sequence[Pair], *, chat: bool = False, count: int = PROBES
) -> ReferenceOutputs | None:
    """Return what the model says to `count` of the pairs now; None where there is none to ask, or `count` is 0.

    Pairs with a choice that does not fit the model's window are left out.
    """
    prompts = [_ask(pair, chat) for pair in choose_probes(pairs, count)]
    fitting = list(_fitting(model, prompts, chat))
    if not fitting:
        return None
    return _probes(model, _score(model, fitting))


def check_choices(model: Model, pairs: Iterable[Pair], *, chat: bool) -> None:
    """Raise DataError for choices that the tokenizer makes the same tokens of, before anything is trained on them.

    One pair is looked at for each set of choices, of up to a thousand: records may bring choices of their own.
    """
    from promptkit.scoring import prompt_lengths

    kinds = {(pair.template, pair.choices): pair for pair in pairs if pair.completion in pair.choices}
    prompt_lengths(model, [_ask(pair, chat) for pair in itertools.islice(kinds.values(), _LOOKED_AT)], chat=chat)


def ask_again(model: Model, probes: ReferenceOutputs) -> Verdict:
    """Score the probes with a model and compare what it says with what was recorded.

    A label has changed where another choice is the most likely now, and led or trailed by more than rounding in the
    coarser of the two number formats explains.
    """
    rows = [probe.model_dump(include={"id", "prompt", "messages", "choices"}) for probe in probes.rows]
    scored = _score(model, [prompt_from_row(row) for row in rows])
    rounding = max(rounding_of(probes.dtype), rounding_of(model.dtype))
    flips, largest = [], 0.0
    for probe, (_, logprobs, tokens) in zip(probes.rows, scored, strict=True):
        moves = [abs(now - then) for now, then in zip(logprobs, probe.logprobs, strict=True)]
        largest = max([largest, *moves])
        if flip := _find_flip(probe, logprobs, tokens, rounding):
            flips.append(flip)
    return Verdict(_probes(model, scored), tuple(flips), largest)


def _probes(model: Model, scored: Iterable[_Scored]) -> ReferenceOutputs:
    rows = tuple(
        ReferenceOutput(
            id=prompt.id,
            prompt=prompt.text,
            messages=tuple(Turn(**turn) for turn in message_rows(prompt.messages)),
            choices=prompt.choices,
            logprobs=tuple(round(nats, 6) for nats in logprobs),
        )
        for prompt, logprobs, _ in scored
    )
    return ReferenceOutputs(dtype=model.dtype, device=kind_of_device(model), rows=rows)


def _find_flip(probe: ReferenceOutput, logprobs: Sequence[float], tokens: int, rounding: float) -> str:
    """Return what changed, in words; nothing where the answer is the same."""
    if len(probe.choices) == 1:
        moved = abs(logprobs[0] - probe.logprobs[0]) / tokens
        return f"row {probe.id!r}, whose text moved by {moved:.3g} nats per token" if moved > MOVED else ""
    then, now = probe.chosen, logprobs.index(max(logprobs))
    led = probe.logprobs[then] - probe.logprobs[now]
    if led <= rounding and logprobs[now] - logprobs[then] <= rounding:
        return ""
    return f"row {probe.id!r} from {probe.choices[then]!r} to {probe.choices[now]!r}"


def _ask(pair: Pair, chat: bool) -> Prompt:
    choices = pair.choices if pair.completion in pair.choices else (pair.completion,)
    text, messages = ("", pair.messages) if chat else (pair.prompt, ())
    return Prompt(pair.id, text, choices, None, messages, template=pair.template)


def _fitting(model: Model, prompts: Sequence[Prompt], chat: bool) -> Iterator[Prompt]:
    from promptkit.scoring import prompt_lengths

    lengths = prompt_lengths(model, prompts, chat=chat)
    return (prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= model.window)


def _score(model: Model, prompts: Sequence[Prompt]) -> list[_Scored]:
    from promptkit.scoring import score

    table = score(model, prompts, chat=bool(prompts[0].messages))
    return [
        (prompt, prediction.logprobs, prediction.tokens[0])
        for prompt, prediction in zip(prompts, table.predictions, strict=True)
    ]


def rounding_of(dtype: str) -> float:
    """Return the nats by which rounding may move a score; of formats that are not known here, as for the coarsest."""
    return ROUNDING.get(dtype, max(ROUNDING.values()))


def kind_of_device(model: Model) -> str:
    """Return cpu, cuda or mps: a device without its number."""
    return model.device.partition(":")[0]


def installed_versions() -> dict[str, str]:
    """Return the release of every package that may change what an adapter says."""
    return {name: version(name) for name in PACKAGES}


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 (hex) of what turns text into ids: vocabulary, rules, special tokens, chat template.

    It is taken from the loaded tokenizer, so that files which say the same in another way are the same.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else repr(sorted(tokenizer.get_vocab().items()))
    said = (rules, sorted(tokenizer.special_tokens_map.items()), tokenizer.chat_template)
    return hashlib.sha256(repr(said).encode()).hexdigest()
