"""Drawn tokens: in the right shares, and the same whatever else is drawn."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from scipy.stats import chisquare
from transformers import TopPLogitsWarper

from promptkit.costs.flops import shape_of
from promptkit.errors import ModelError, PromptkitError
from promptkit.scoring.decoding_state import GenerationRequest
from promptkit.scoring.forward import Network
from promptkit.scoring.generation import generate
from promptkit.scoring.log_likelihood import ExecutionMode, Usage
from promptkit.scoring.sampling import Sampling, choose_sampling, draw_tokens, random_number, sample_key
from tests.helpers.naive import model

LOGITS = torch.randn(6, 400, generator=torch.Generator().manual_seed(0)) * 3


def shares(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The probability of every token: softmax and nucleus as transformers has them."""
    warped = logits.double()[None] / sampling.temperature
    if sampling.top_p < 1:
        warped = TopPLogitsWarper(sampling.top_p)(torch.zeros(1, 1), warped)
    return warped.softmax(-1)[0]


def assert_drawn_from(probabilities: torch.Tensor, tokens: list[int]) -> None:
    """Chi-square: the counts are those of the probabilities; tokens expected less than five times count as one."""
    counts = torch.bincount(torch.tensor(tokens), minlength=len(probabilities)).double()
    expected = probabilities * len(tokens)
    assert not counts[probabilities == 0].any()
    common = expected >= 5
    seen = [*counts[common].tolist(), float(counts[~common].sum())]
    wanted = [*expected[common].tolist(), float(expected[~common].sum())]
    if wanted[-1] < 1e-6:
        seen, wanted = seen[:-1], wanted[:-1]
    assert len(wanted) > 3
    assert chisquare(seen, wanted).pvalue > 0.001


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_tokens_are_drawn_in_the_models_shares(temperature: float, top_p: float) -> None:
    """Thousands of draws after one prompt come out as the softmax that transformers' own logits give."""
    sampling, network = Sampling(4000, temperature, top_p, seed=1), Network(model())
    ids = tuple(model().encoder.encode("Text: the soup"))
    requests = [GenerationRequest(ids, (), 1, sample) for sample in range(sampling.samples)]
    usage = Usage(shape_of(model().network))
    with network.evaluating():
        written = generate(network, ExecutionMode.TREE, requests, usage, batch_tokens=4096, sampling=sampling)
        logits = model().network(input_ids=torch.tensor([ids])).logits[0, -1]
    assert_drawn_from(shares(logits, sampling), [text.ids[0] for text in written])
    assert usage.tokens <= 2 * len(ids)  # all samples together


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.9999])
def test_nucleus_is_that_of_transformers(top_p: float) -> None:
    """Numbers all over [0, 1) draw only tokens of the nucleus, and each of its likelier ones."""
    numbers = [number / 5000 for number in range(5000)]
    sampling = Sampling(2, 1.0, top_p)
    for logits in (LOGITS, LOGITS / 20):  # few tokens reach it, and more than are sorted at first
        for row, drawn in zip(logits, draw_tokens(logits, [numbers] * len(logits), sampling), strict=True):
            probabilities = shares(row, sampling)
            assert set(drawn) <= set(probabilities.nonzero()[:, 0].tolist())
            assert set(drawn) >= set((probabilities > 1 / 2000).nonzero()[:, 0].tolist())


def test_draw_does_not_depend_on_other_rows() -> None:
    """A row gives the same tokens alone and among others, however many numbers these have."""
    numbers = [[random_number(sample_key(0, [row], sample), 0) for sample in range(row)] for row in range(6)]
    for sampling in (Sampling(2), Sampling(2, 1.3, 0.8)):
        together = draw_tokens(LOGITS, numbers, sampling)
        for row in range(1, 6):
            assert draw_tokens(LOGITS[row : row + 1], [numbers[row]], sampling) == [together[row]]


def test_random_numbers_are_a_function_of_seed_prompt_sample_and_position() -> None:
    """Change one of them and the number is another; run it in another process and it is the same."""
    known = {
        (seed, ids, sample, position): random_number(sample_key(seed, ids, sample), position)
        for seed in (0, 1)
        for ids in ((1, 2), (12,), (1, 2, 3))
        for sample in (0, 1, 12)
        for position in (0, 1)
    }
    assert len(set(known.values())) == len(known)
    assert all(0 <= number < 1 for number in known.values())
    code = "from promptkit.scoring.sampling import *; print(random_number(sample_key(1, (1, 2), 12), 1))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(printed) == known[1, (1, 2), 12, 1]


def test_one_sample_is_the_greedy_text() -> None:
    """One sample draws nothing, so settings of a draw are refused beside it."""
    assert choose_sampling(1) is None
    assert choose_sampling(5) == Sampling(5, 0.7, 1.0, 0)
    with pytest.raises(PromptkitError, match="temperature goes with several samples"):
        choose_sampling(1, temperature=0.7)
    with pytest.raises(PromptkitError, match="top-p goes with several samples"):
        choose_sampling(1, top_p=0.9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"temperature": 0.0}, "temperature is 0; it must be above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top-p is 0; it must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top-p is 1.01"),
    ],
)
def test_numbers_out_of_range_are_errors(settings: dict[str, float], message: str) -> None:
    """What cannot be drawn with is named."""
    with pytest.raises(PromptkitError, match=message):
        choose_sampling(**{"samples": 3, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_logits_that_are_no_numbers_are_an_error(top_p: float) -> None:
    """Damaged weights do not draw the last token of the vocabulary for ever."""
    with pytest.raises(ModelError, match="not numbers"):
        draw_tokens(torch.full((2, 5), torch.nan), [[0.5], [0.5]], Sampling(2, 1.0, top_p))
