"""Scores and calibrations against their formulas, on made-up probabilities and on a model's."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy
import pytest

from promptkit.errors import DataError
from promptkit.scoring import Prediction, Table, score
from promptkit.scoring.calibration import CALIBRATIONS, SCORES, Likelihoods, batch_prior, calibrate, content_free_prior
from tests.helpers.naive import model, naive_logprob, naive_logprobs

CLOSE = 1e-4  # nats
FRONT = "Text: the bread was awful\nSentiment: negative\n\nText: the soup was good\nSentiment: positive\n\n" * 3
TEXTS = ["the soup was cold", "the bread was good and warm", "x", "what is it?", "the soup was cold and awful"]
CHOICES = [" positive", " negative", " Science and Technology", " é"]


def made_up(seed: int, prompts: int = 6, choices: int = 3) -> Table:
    """A table of random log-likelihoods, with three content-free prompts and twenty of the domain."""
    rng = random.Random(seed)

    def likelihoods() -> Likelihoods:
        sums = tuple(-rng.uniform(0.1, 6) for _ in range(choices))
        return Likelihoods(sums, tuple(nats / 2 for nats in sums), (1, 2, 4)[:choices], (9, 5, 12)[:choices])

    shared = tuple(likelihoods() for _ in range(3)), tuple(likelihoods() for _ in range(20))
    rows = [likelihoods() for _ in range(prompts)]
    return Table(
        tuple(
            Prediction(
                str(number),
                row.logprobs,
                row.logprobs.index(max(row.logprobs)),
                0,
                first=row.first,
                tokens=row.tokens,
                bytes=row.bytes,
                content_free=shared[0],
                domain=shared[1],
            )
            for number, row in enumerate(rows)
        )
    )


def published(probabilities: Any, content_free: Any) -> Any:
    """Zhao et al. 2021 as its authors compute it: q = W p with W = diag(p_cf)^-1, [prompts, choices]."""
    p_cf = numpy.mean(content_free, axis=0)
    p_cf = p_cf / p_cf.sum()
    weights = numpy.linalg.inv(numpy.identity(len(p_cf)) * p_cf)
    return numpy.array([weights @ (row / row.sum()) for row in probabilities])


def nats(rows: Any) -> Any:
    """Sums of log-likelihoods as an array [prompts, choices]."""
    return numpy.array([row.logprobs for row in rows])


@pytest.mark.parametrize("seed", range(5))
def test_contextual_calibration_is_the_published_formula(seed: int) -> None:
    """The same probabilities give the same numbers, and so the same choices."""
    table = made_up(seed)
    wanted = published(numpy.exp(nats(table.predictions)), numpy.exp(nats(table.predictions[0].content_free)))
    assert numpy.exp(table.scores("sum", "contextual")) == pytest.approx(wanted)
    assert list(table.choose("sum", "contextual")) == list(wanted.argmax(axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_domain_calibration_divides_by_the_mean_over_the_domain(seed: int) -> None:
    """Fei et al. 2023: the same division, by the mean over random words."""
    table = made_up(seed)
    wanted = published(numpy.exp(nats(table.predictions)), numpy.exp(nats(table.predictions[0].domain)))
    assert numpy.exp(table.scores("sum", "domain")) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["sum", "token", "byte", "first", "pmi"])
def test_batch_calibration_divides_by_the_mean_over_the_batch(name: str) -> None:
    """Zhou et al. 2023: p / mean of p over the prompts, for the probabilities of any score."""
    table = made_up(0)
    p = numpy.exp(table.scores(name))
    p = p / p.sum(axis=1, keepdims=True)
    assert numpy.exp(table.scores(name, "batch")) == pytest.approx(p / p.mean(axis=0))


def test_batch_calibration_does_not_depend_on_the_order_of_prompts() -> None:
    """In another order every prompt has the very same score, to the last bit."""
    table = made_up(1, prompts=50)
    mixed = random.Random(0).sample(table.predictions, 50)
    before = dict(zip((each.id for each in table.predictions), table.scores("sum", "batch"), strict=True))
    after = dict(zip((each.id for each in mixed), Table(tuple(mixed)).scores("sum", "batch"), strict=True))
    assert before == after


def test_scores_that_need_no_other_prompt() -> None:
    """A sum, its mean per token, its mean per byte, and the first token's."""
    row = Prediction("a", (-4.0, -3.0), 1, 0, first=(-1.0, -2.5), tokens=(4, 2), bytes=(8, 12))
    table = Table((row,))
    wanted = {"sum": (-4.0, -3.0), "token": (-1.0, -1.5), "byte": (-0.5, -0.25), "first": (-1.0, -2.5)}
    assert {name: table.scores(name)[0] for name in wanted} == wanted
    assert [table.choose(name)[0] for name in wanted] == [1, 0, 1, 0]


def test_pmi_subtracts_the_sum_after_the_last_content_free_prompt() -> None:
    """Holtzman et al. 2021: log P(choice | prompt) - log P(choice | domain premise), nothing else."""
    table = made_up(2)
    alone = table.predictions[0].content_free[-1].logprobs
    wanted = [[own - other for own, other in zip(row, alone, strict=True)] for row in table.logprobs]
    assert table.scores("pmi") == tuple(map(tuple, wanted))


def test_uninformative_prompts_change_no_choice() -> None:
    """Where every choice is as likely without content, calibration leaves the order as it is."""
    flat = tuple(Likelihoods((-2.0,) * 3, (-2.0,) * 3, (1,) * 3, (1,) * 3) for _ in range(3))
    table = Table(tuple(replace(each, content_free=flat, domain=flat) for each in made_up(3).predictions))
    for name in ("contextual", "domain"):
        assert table.choose("sum", name) == table.predicted


def test_tiny_probabilities_do_not_vanish() -> None:
    """Sums far below what a float's exponential can hold are calibrated like any others."""
    prior = content_free_prior([(-2000.0, -2001.0), (-2000.0, -2001.0)])
    assert prior == pytest.approx((-math.log1p(math.exp(-1)), -1 - math.log1p(math.exp(-1))))
    assert calibrate((-5000.0, -5000.0), prior) == pytest.approx((-math.log(2) - prior[0], -math.log(2) - prior[1]))


def test_free_text_has_no_scores() -> None:
    """An answer that was read stays what it is, among prompts with choices too."""
    table = Table((Prediction("a", (), "29", "29"), *made_up(4).predictions))
    for name in SCORES:
        for calibration in CALIBRATIONS:
            assert table.scores(name, calibration)[0] == ()
            assert table.choose(name, calibration)[0] == "29"


def test_what_cannot_be_computed_is_explained() -> None:
    """Unknown names, missing content-free prompts and batches of different choices are one clear line."""
    table = Table((Prediction("a", (-1.0, -2.0), 0, 0, first=(-1.0, -2.0), tokens=(1, 1), bytes=(2, 2)),))
    with pytest.raises(DataError, match=r"unknown score 'tokens'; known: sum, .*Did you mean 'token'\?"):
        table.scores("tokens")
    with pytest.raises(DataError, match="unknown calibration 'zhao'; known: none, contextual, domain, batch"):
        table.scores("sum", "zhao")
    with pytest.raises(DataError, match=r"prompt 'a' was scored without content-free prompts; .* `content_free`"):
        table.scores("pmi")
    with pytest.raises(DataError, match=r"prompt 'a' was scored without content-free prompts; .* `domain`"):
        table.scores("sum", "domain")
    with pytest.raises(DataError, match="batch calibration needs the same choices in every prompt"):
        batch_prior([(-1.0, -2.0), (-1.0, -2.0, -3.0)])
    mixed = [Prediction(str(place), (-1.0, -2.0), 0, 0, choices=tuple(pair)) for place, pair in enumerate(["ab", "cd"])]
    with pytest.raises(DataError, match="batch calibration needs the same choices in every prompt; they differ"):
        Table(tuple(mixed)).scores("sum", "batch")


def rows() -> list[dict[str, Any]]:
    """Queries behind demonstrations, with content-free prompts behind the same ones."""

    def prompt(text: str) -> str:
        return f"{FRONT}Text: {text}\nSentiment:"

    content_free = [prompt(text) for text in ("N/A", "[MASK]", "")]
    domain = [prompt("soup the was bread"), prompt("it cold is")]
    return [{"prompt": prompt(t), "choices": CHOICES, "content_free": content_free, "domain": domain} for t in TEXTS]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mamba"])
def test_a_model_gives_what_the_naive_pass_gives(architecture: str) -> None:
    """First tokens, counts and content-free prompts equal those of one plain pass each, however it is run."""
    scored = model(architecture)
    for prediction, row in zip(score(scored, rows()).predictions, rows(), strict=True):
        tokens = [len(scored.tokenizer.encode(choice, add_special_tokens=False)) for choice in CHOICES]
        assert prediction.tokens == tuple(tokens)
        assert prediction.bytes == (9, 9, 23, 3)
        heads = [scored.tokenizer.decode(scored.tokenizer.encode(c, add_special_tokens=False)[0]) for c in CHOICES[:3]]
        firsts = [naive_logprob(scored, row["prompt"], head) for head in heads]
        assert prediction.first[:3] == pytest.approx(firsts, abs=CLOSE)
        for given, seen in ((row["content_free"], prediction.content_free), (row["domain"], prediction.domain)):
            for text, likelihoods in zip(given, seen, strict=True):
                assert likelihoods.logprobs == pytest.approx(naive_logprobs(scored, text, CHOICES), abs=CLOSE)


def test_scores_depend_on_neither_order_nor_batches() -> None:
    """Every score under every calibration is the same for any batch size and order of the rows."""
    scored = model()
    table, mixed = score(scored, rows()), score(scored, rows()[::-1], batch_tokens=16)
    for name in SCORES:
        for calibration in CALIBRATIONS:
            again = mixed.scores(name, calibration)[::-1]
            for one, other in zip(table.scores(name, calibration), again, strict=True):
                assert one == pytest.approx(other, abs=CLOSE)


def test_content_free_prompts_are_scored_in_the_same_pass() -> None:
    """They share the demonstrations with the queries: five of them cost less than one run of those."""
    plain = score(model(), [{key: row[key] for key in ("prompt", "choices")} for row in rows()])
    table = score(model(), rows())
    added = table.tokens_computed - plain.tokens_computed
    assert 0 < added < len(model().tokenizer.encode(FRONT))
    assert numpy.array(table.logprobs) == pytest.approx(numpy.array(plain.logprobs), abs=CLOSE)
    assert len(table.predictions) == len(TEXTS)


def test_content_free_turns_go_through_the_chat_template() -> None:
    """With chat, a content-free prompt is a list of turns and is rendered as the prompts are."""
    turns = [{"role": "user", "content": "N/A"}]
    own = {"prompt": "x", "choices": CHOICES, "messages": [{"role": "user", "content": "x"}]}
    table = score(model(), [{**own, "content_free": [turns]}], chat=True)
    alone = score(model(), [{"prompt": "", "choices": CHOICES, "messages": turns}], chat=True)
    assert table.predictions[0].content_free[0].logprobs == pytest.approx(alone.logprobs[0], abs=CLOSE)
