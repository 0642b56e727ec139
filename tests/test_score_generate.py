"""What a model writes: transformers' own greedy text, whatever is written beside it, cut at its stop sequence."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from promptkit.errors import DataError, WindowError
from promptkit.models import Model
from promptkit.prompt import Generation, Message, Prompt
from promptkit.score import prompt_lengths, score
from promptkit.score.writing import Request, Writer, find_ends
from tests.naive import ARCHITECTURES, SLOW, model, naive_logprobs, tokenizer

CLOSE = 1e-4  # nats
INSTRUCTION = "Label the following review with either positive or negative.\n\nText: the bread was awful.\n" * 4
CHOICES = (" positive", " negative")
QUERIES = ["the soup was cold", "the bread was good and warm", "what is it?", "x", "the soup was cold and awful"]


def prompts(*, stop: tuple[str, ...] = (), most: int = 16, choices: tuple[str, ...] = CHOICES) -> list[Prompt]:
    """Queries behind one instruction, each with its own limit, and one prompt that begins all others."""
    limits = random.Random(0)
    return [
        Prompt(str(i), text, choices, None, generation=Generation(stop, limits.randint(1, most), None))
        for i, text in enumerate(
            [*(f"{INSTRUCTION}Text: {query}\nSentiment:" for query in QUERIES), INSTRUCTION, "Label"]
        )
    ]


def greedy(scored: Model, prompt: Prompt) -> str:
    """What transformers' generate writes after one prompt, alone."""
    ids = torch.tensor([scored.encoder.encode(prompt.text)])
    assert prompt.generation
    out = scored.network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=prompt.generation.max_tokens
    )[0].tolist()
    new = out[ids.shape[1] :]
    new = new[: new.index(2)] if 2 in new else new
    before, both = (scored.encoder.decode(tokens) for tokens in (ids[0].tolist(), [*ids[0].tolist(), *new]))
    return both[len(before) :] if both.startswith(before) else scored.encoder.decode(new)


def likely(scored: Model, token: int) -> Model:
    """A copy of the model that always writes one token."""
    network = type(scored.network)(scored.network.config).eval()
    network.load_state_dict(scored.network.state_dict())
    head = torch.nn.Linear(network.config.hidden_size, network.config.vocab_size)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[token] = 9.0
    network.set_output_embeddings(head)
    return replace(scored, network=network)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        *((name, "byte-level") for name in (*ARCHITECTURES, "bloom", "mamba")),
        ("llama", "unigram"),
        ("gpt2", "wordpiece"),
    ],
)
def test_writing_is_greedy_as_transformers_writes_it(architecture: str, kind: str) -> None:
    """Side by side behind a shared prefix, in little room: what each prompt gives alone."""
    scored = model(architecture, kind)
    table = score(scored, prompts(), batch_tokens=200)
    assert [prediction.generated for prediction in table.predictions] == [greedy(scored, p) for p in prompts()]


def test_writing_does_not_depend_on_what_is_written_beside_it() -> None:
    """Any order, subset and room give the same texts and scores."""
    whole = {p.id: p for p in score(model("gemma2"), prompts(), batch_tokens=4096).predictions}
    for seed, room in enumerate((1, 64, 150, 1000)):
        some = random.Random(seed).sample(prompts(), k=5)
        for prediction in score(model("gemma2"), some, batch_tokens=room).predictions:
            assert prediction.generated == whole[prediction.id].generated
            assert prediction.logprobs == pytest.approx(whole[prediction.id].logprobs, abs=CLOSE)


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_choices_are_scored_after_what_was_written(architecture: str) -> None:
    """Chain of thought: the choices' scores are those after prompt and rationale in one encoding."""
    table = score(model(architecture), prompts())
    for prompt, prediction in zip(prompts(), table.predictions, strict=True):
        wanted = naive_logprobs(model(architecture), prompt.text + (prediction.generated or ""), CHOICES)
        assert prediction.logprobs == pytest.approx(wanted, abs=CLOSE)


def test_rationale_begins_the_assistants_turn() -> None:
    """In a chat, what was written stands at the start of the assistant's turn, and the choice goes on from there."""
    prompt = Prompt("a", "", CHOICES, 0, (Message("user", "the soup"),), generation=Generation((), 4, None))
    (prediction,) = score(model(), [prompt], chat=True).predictions
    rendered = f"<|user|>\nthe soup</s>\n<|assistant|>\n{prediction.generated}"
    assert prediction.logprobs == pytest.approx(naive_logprobs(model(), rendered, CHOICES), abs=CLOSE)


def writer(stop: tuple[str, ...], *, kind: str = "byte-level", most: int = 50) -> Writer:
    """A writer that has written nothing yet."""
    scored = model(kind=kind)
    return Writer(scored, Request(tuple(scored.encoder.encode("Text:")), stop, most), find_ends(scored, stop))


def write(pen: Writer, text: str) -> int:
    """Hand a text to the writer token by token; the number of tokens it took before it was done."""
    ids = pen.model.tokenizer.encode(text, add_special_tokens=False)
    return next((count for count, token in enumerate(ids, 1) if pen.add(token)), 0)


def test_stop_sequence_may_span_tokens() -> None:
    """A stop is found in the text, however it is cut into tokens, and the text before it is kept."""
    pen = writer(("t was g", "\n\n"))
    assert write(pen, " the soup. it was good and cold") > 0
    assert pen.written
    assert (pen.written.text, pen.written.finished) == (" the soup. i", True)


def test_first_of_several_stops_ends_the_text() -> None:
    """Where one token brings two stops, the text ends before the earlier one."""
    pen = writer(("itive", " pos"))
    write(pen, " it is positive")
    assert pen.written
    assert pen.written.text == " it is"


@pytest.mark.parametrize("kind", ["byte-level", "unigram"])
def test_first_word_keeps_its_space(kind: str) -> None:
    """The text goes on from the prompt: its first space is there with any tokenizer."""
    pen = writer(("Sentiment",), kind=kind)
    write(pen, " the soup Sentiment")
    assert pen.written
    assert pen.written.text == " the soup "


def test_eos_and_special_stops_end_the_text() -> None:
    """An EOS ends the text and is not in it; so does a special token that is given as a stop."""
    assert find_ends(model(), ("<unk>", "x")) == {2, 3}
    pen = writer(("<unk>",))
    assert write(pen, " the soup<unk>") > 0
    assert pen.written
    assert pen.written.text == " the soup"


def test_model_that_always_ends_writes_nothing() -> None:
    """An EOS at once is an empty, finished text."""
    table = score(likely(model(), 2), prompts())
    assert {prediction.generated for prediction in table.predictions} == {""}
    assert (table.unfinished, table.tokens_generated) == (0, len(prompts()))


def test_text_that_hits_the_limit_is_kept_scored_and_counted() -> None:
    """A model that never stops writes up to the limit; its choices are scored all the same."""
    token = tokenizer().encode(" and", add_special_tokens=False)[0]
    table = score(likely(model(), token), prompts())
    limits = [prompt.generation.max_tokens for prompt in prompts() if prompt.generation]
    text = tokenizer().decode([token])
    assert [prediction.generated for prediction in table.predictions] == [text * limit for limit in limits]
    assert table.unfinished == len(limits)
    assert table.tokens_generated == sum(limits)
    assert all(len(prediction.logprobs) == 2 for prediction in table.predictions)


def free_prompt(answer: str | None, label: Any = "5", **options: Any) -> Prompt:
    """A prompt whose answer is free text."""
    return Prompt("a", "Question:", (), label, generation=Generation((), 3, answer), **options)


def test_free_text_is_read_by_the_templates_own_pattern() -> None:
    """The answer is group 1 of the first match; one that cannot be read is None, and counted."""
    token = tokenizer().encode("s", add_special_tokens=False)[0]
    scored = likely(model(), token)
    assert score(scored, [free_prompt("(s+)")]).predicted == ("sss",)
    table = score(scored, [free_prompt("(s+)"), free_prompt("####(.*)")])
    assert table.predicted == ("sss", None)
    assert table.unread == 1
    assert table.logprobs == ((), ())


def test_free_text_without_a_pattern_is_the_answer() -> None:
    """Without a pattern, all that was written is the answer; nothing is no answer."""
    token = tokenizer().encode("s", add_special_tokens=False)[0]
    assert score(likely(model(), token), [free_prompt(None)]).predicted == ("sss",)
    assert score(likely(model(), 2), [free_prompt(None)]).predicted == (None,)


def test_answer_that_is_read_names_a_choice() -> None:
    """Where there are choices and a pattern, the answer that was read is looked up among them, not scored."""
    token = tokenizer().encode("s", add_special_tokens=False)[0]
    prompt = replace(free_prompt("(s+)", label=1), choices=(" no", " sss"))
    table = score(likely(model(), token), [prompt, replace(prompt, choices=(" no", " ss"), label=0)])
    assert table.predicted == (1, None)
    assert table.logprobs == ((), ())


def test_shared_prefix_is_computed_once_for_writing() -> None:
    """Many queries behind a long instruction: it is run once to write, and once more to score."""
    rows = [
        Prompt(str(i), f"{INSTRUCTION * 3}Text: {i}\nSentiment:", CHOICES, None, generation=Generation((), 4, None))
        for i in range(60)
    ]
    table = score(model(), rows)
    shared = len(model().encoder.encode(INSTRUCTION * 3))
    assert table.tokens_computed < 3 * shared + 60 * 2 * 30
    assert table.tokens_prompted > 60 * 3 * shared
    ends = ("a.", tokenizer().decode([len(tokenizer()) - 1]) + ".")  # before and after all these in the tree
    others = [replace(rows[0], id=text, text=text) for text in ends]
    assert score(model(), [*rows, *others]).tokens_computed < table.tokens_computed + 50


def test_equal_requests_are_written_once() -> None:
    """The same prompt twice is written once, and both get the text."""
    once, twice = score(model(), prompts()[:1]), score(model(), prompts()[:1] * 2)
    assert twice.predictions == once.predictions * 2
    assert twice.tokens_computed == once.tokens_computed


def test_writing_has_to_fit_the_window() -> None:
    """The limit of what may be written counts against the window."""
    row = prompts()[0]
    length = prompt_lengths(model(), [row])[0]
    with pytest.raises(WindowError, match=rf"takes {length} tokens \(\d+ of them to be written\)"):
        score(replace(model(), window=length - 1), [row])


def test_prompt_with_neither_choices_nor_generation_is_an_error() -> None:
    """There is nothing to score and nothing to write."""
    with pytest.raises(DataError, match="no choices, and nothing to generate"):
        score(model(), [Prompt("a", "Question:", (), "5")])


def test_progress_counts_writing_and_scoring() -> None:
    """Writing is the first half, scoring the second."""
    seen: list[int] = []
    score(model(), prompts(), progress=lambda done, total: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == len(prompts())
    assert len(seen) > len(prompts())


@pytest.mark.parametrize("architecture", SLOW)
def test_slow_networks_leave_their_settings_alone(architecture: str) -> None:
    """Writing one by one does not change the generation settings of the network that was passed in."""
    before = model(architecture).network.generation_config.to_dict()
    score(model(architecture), prompts()[:1])
    assert model(architecture).network.generation_config.to_dict() == before
