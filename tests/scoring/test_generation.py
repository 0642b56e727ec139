"""What a model writes: transformers' own text, greedy or drawn, whatever is written beside it, cut at its stop."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from promptkit.errors import DataError, ModelError, PromptkitError, WindowError
from promptkit.models import Model
from promptkit.prompts.prompt import Generation, Message, Prompt
from promptkit.scoring import Table, prompt_lengths, score
from promptkit.scoring.decoding_state import DecodingState, GenerationRequest, find_ends
from promptkit.scoring.sampling import Sampling, draw_tokens, random_number, sample_key
from tests.helpers.naive import ARCHITECTURES, SLOW, model, naive_logprobs, tokenizer

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


def drawn(scored: Model, prompt: Prompt, sample: int, sampling: Sampling) -> str:
    """One sample, from a whole forward pass of transformers for every token."""
    assert prompt.generation
    request = GenerationRequest(
        tuple(scored.encoder.encode(prompt.text)), prompt.generation.stop, prompt.generation.max_tokens
    )
    pen, key = DecodingState(scored, request, find_ends(scored)), sample_key(sampling.seed, request.ids, sample)
    while pen.written is None:
        with torch.no_grad():
            logits = scored.network(input_ids=torch.tensor([[*request.ids, *pen.ids]])).logits[:, -1]
        [[token]] = draw_tokens(logits, [[random_number(key, len(pen.ids))]], sampling)
        pen.add(token)
    return pen.written.text


def texts(table: Table) -> list[list[str]]:
    """What was drawn, per prompt and sample."""
    return [[sample.generated for sample in prediction.samples] for prediction in table.predictions]


def likely(scored: Model, *tokens: int) -> Model:
    """A copy of the model that always writes one token; of several, each as likely."""
    network = type(scored.network)(scored.network.config).eval()
    network.load_state_dict(scored.network.state_dict())
    head = torch.nn.Linear(network.config.hidden_size, network.config.vocab_size)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[list(tokens)] = 15.0
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


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [*((name, "byte-level") for name in (*ARCHITECTURES, "mamba")), ("llama", "unigram"), ("gpt2", "wordpiece")],
)
@pytest.mark.parametrize("choices", [CHOICES, ("ly", "lier still", " lie")])
def test_choices_are_scored_after_what_was_written(architecture: str, kind: str, choices: tuple[str, ...]) -> None:
    """The choices' scores are those after prompt and rationale in one encoding, also where that cuts them otherwise."""
    scored = model(architecture, kind)
    table = score(scored, prompts(choices=choices), batch_tokens=300)
    for prompt, prediction in zip(prompts(), table.predictions, strict=True):
        wanted = naive_logprobs(scored, prompt.text + (prediction.generated or ""), choices)
        assert prediction.logprobs == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mistral", "bloom", "mamba"])
@pytest.mark.parametrize("sampling", [Sampling(3, 1.2, 1.0, 5), Sampling(3, 0.9, 0.8, 5)])
def test_samples_are_drawn_from_transformers_own_logits(architecture: str, sampling: Sampling) -> None:
    """Along the tree, in batches and alone: every token is the one that a whole pass and the same number give."""
    scored = model(architecture)
    table = score(
        scored, prompts(), batch_tokens=200, samples=3, temperature=sampling.temperature, top_p=sampling.top_p, seed=5
    )
    assert texts(table) == [[drawn(scored, prompt, sample, sampling) for sample in range(3)] for prompt in prompts()]
    assert len({text for row in texts(table) for text in row}) > 10


def test_samples_do_not_depend_on_what_is_drawn_beside_them() -> None:
    """Any order, subset, room and number of samples give the same texts and scores; another seed gives others."""
    whole = {p.id: p for p in score(model("gemma2"), prompts(), samples=6, temperature=1.5).predictions}
    for seed, room in enumerate((1, 64, 150, 1000)):
        some = random.Random(seed).sample(prompts(), k=5)
        table = score(model("gemma2"), some, samples=3 + seed, temperature=1.5, batch_tokens=room)
        for prediction in table.predictions:
            for sample, other in zip(prediction.samples, whole[prediction.id].samples, strict=False):
                assert (sample.generated, sample.predicted) == (other.generated, other.predicted)
                assert sample.logprobs == pytest.approx(other.logprobs, abs=CLOSE)
    reseeded = score(model("gemma2"), prompts(), samples=6, temperature=1.5, seed=1)
    assert texts(reseeded) != [[sample.generated for sample in whole[p.id].samples] for p in prompts()]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "bloom"])
def test_choices_are_scored_after_every_sample(architecture: str) -> None:
    """Each sample's scores are those after its own text; it votes for its most likely choice."""
    table = score(model(architecture), prompts(), samples=4, temperature=1.5)
    for prompt, prediction in zip(prompts(), table.predictions, strict=True):
        assert (prediction.logprobs, prediction.generated) == ((), None)
        for sample in prediction.samples:
            wanted = naive_logprobs(model(architecture), prompt.text + sample.generated, CHOICES)
            assert sample.logprobs == pytest.approx(wanted, abs=CLOSE)
            assert sample.predicted == sample.logprobs.index(max(sample.logprobs))
        ballots = [sample.predicted for sample in prediction.samples]
        assert prediction.votes[0] == (prediction.predicted, ballots.count(prediction.predicted))


def test_requests_that_end_at_different_lengths_share_their_tokens() -> None:
    """The same prompt with several limits and stops is one text: each gets its beginning of it, and its own scores."""
    limits = [Generation((), 16, None), Generation((), 3, None), Generation(("e",), 16, None), Generation((), 9, None)]
    same = [replace(prompts()[0], id=str(n), generation=limit) for n, limit in enumerate(limits)]
    table = score(model("qwen2"), same)
    for prompt, prediction in zip(same, table.predictions, strict=True):
        assert prediction.generated == greedy(model("qwen2"), prompt).partition("e" if prompt.id == "2" else "\0")[0]
        wanted = naive_logprobs(model("qwen2"), prompt.text + prediction.generated, CHOICES)
        assert prediction.logprobs == pytest.approx(wanted, abs=CLOSE)
    assert table.tokens_computed < len(model("qwen2").encoder.encode(same[0].text)) + 16 + 4 * 10


def test_every_sample_is_counted_and_only_what_differs_is_computed() -> None:
    """Samples of one prompt run the prompt once, and part where they differ; what was written counts in full."""
    scored = likely(model(), *tokenizer().encode(" and good", add_special_tokens=False))
    free = [replace(prompt, choices=()) for prompt in prompts()]
    table = score(scored, free, samples=8)
    lengths = [len(model().encoder.encode(prompt.text)) for prompt in free]
    limits = [prompt.generation.max_tokens for prompt in free if prompt.generation]
    assert max(len(set(row)) for row in texts(table)) > 4
    assert table.tokens_generated == 8 * sum(limits)
    assert table.tokens_prompted == 8 * (sum(lengths) + sum(limits))
    assert table.tokens_computed < sum(lengths) + 8 * sum(limits)
    assert table.tokens_computed <= table.tokens_unique + len(free)


def test_no_prompt_is_computed_again_to_score_what_follows_its_text() -> None:
    """Choices go on from the cache of the text: beside the unique tokens only the last before each is run again."""
    long = [replace(prompt, text=INSTRUCTION * 3 + prompt.text) for prompt in prompts()]
    table = score(model(), long)
    assert table.tokens_computed <= table.tokens_unique + 2 * len(long)
    several = score(model(), long, samples=4)
    assert several.tokens_computed <= several.tokens_unique + 5 * len(long)


def test_answers_of_the_samples_vote() -> None:
    """The most frequent answer is predicted, the first of equals; ties and unread answers are counted."""
    good, cold, other = (tokenizer().encode(text, add_special_tokens=False)[0] for text in (" good", " cold", "?"))
    one = Prompt("", "Text:", (), " good", generation=Generation((), 1, "(good|cold|go|c)"))
    rows = [replace(one, id=str(number), text=f"Text: {number}") for number in range(40)]
    table = score(likely(model(), good, cold, other), rows, samples=4)
    ballots = [[sample.predicted for sample in prediction.samples] for prediction in table.predictions]
    read = [[answer for answer in answers if answer] for answers in ballots]
    for prediction, answers in zip(table.predictions, read, strict=True):
        most = max(map(answers.count, answers), default=0)
        assert prediction.predicted == next((answer for answer in answers if answers.count(answer) == most), None)
        assert sum(count for _, count in prediction.votes) == len(answers)
    assert table.ties == sum(2 * answers.count(answers[0]) == len(answers) for answers in read if answers) > 0
    assert 0 < sum(map(len, read)) < 160
    assert score(likely(model(), other), rows, samples=4).unread == 40


def test_samples_of_what_is_not_written_are_an_error() -> None:
    """Where choices are scored alone there is nothing to draw."""
    with pytest.raises(PromptkitError, match="samples is 4, but these prompts have nothing to write"):
        score(model(), [{"prompt": "Text:", "choices": [" a", " b"]}], samples=4)


@pytest.mark.parametrize("samples", [1, 2])
def test_damaged_weights_write_nothing(samples: int) -> None:
    """Logits that are not numbers are an error, not a text."""
    scored = likely(model(), 5)
    torch.nn.init.constant_(scored.network.get_output_embeddings().bias, torch.nan)
    with pytest.raises(ModelError, match="not numbers"):
        score(scored, [free_prompt(None)], samples=samples)


def test_rationale_begins_the_assistants_turn() -> None:
    """In a chat, what was written stands at the start of the assistant's turn, and the choice goes on from there."""
    prompt = Prompt("a", "", CHOICES, 0, (Message("user", "the soup"),), generation=Generation((), 4, None))
    (prediction,) = score(model(), [prompt], chat=True).predictions
    rendered = f"<|user|>\nthe soup</s>\n<|assistant|>\n{prediction.generated}"
    assert prediction.logprobs == pytest.approx(naive_logprobs(model(), rendered, CHOICES), abs=CLOSE)


def writer(stop: tuple[str, ...], *, kind: str = "byte-level", most: int = 50) -> DecodingState:
    """A writer that has written nothing yet."""
    scored = model(kind=kind)
    return DecodingState(
        scored, GenerationRequest(tuple(scored.encoder.encode("Text:")), stop, most), find_ends(scored, stop)
    )


def write(pen: DecodingState, text: str) -> int:
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


@pytest.mark.parametrize("kind", ["byte-level", "unigram", "wordpiece"])
def test_stop_at_the_very_start_is_found(kind: str) -> None:
    """A stop that begins with a space ends the text before its first word, also where a decoder drops that space."""
    pen = writer((" the",), kind=kind)
    assert write(pen, " the soup") > 0
    assert pen.written
    assert (pen.written.text, pen.written.finished) == ("", True)


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
    """Many queries behind a long instruction: it is run once, to write and to score."""
    rows = [
        Prompt(str(i), f"{INSTRUCTION * 3}Text: {i}\nSentiment:", CHOICES, None, generation=Generation((), 4, None))
        for i in range(60)
    ]
    table = score(model(), rows)
    shared = len(model().encoder.encode(INSTRUCTION * 3))
    assert table.tokens_computed < shared + 60 * 30
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
