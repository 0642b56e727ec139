"""Votes over the answers of several samples: the winner, ties, and answers that were not read."""

from __future__ import annotations

from typing import Any

import pytest

from promptkit.scoring.self_consistency import count_votes, is_tied, mean_votes, summarize_votes


@pytest.mark.parametrize(
    ("answers", "votes"),
    [
        (["3", "4", "4"], (("4", 2), ("3", 1))),
        (["$29.00", "29", "1,000", "29.0"], (("$29.00", 3), ("1,000", 1))),
        ([1, 0, 0, 2], ((0, 2), (1, 1), (2, 1))),
        (["4", None, "3", None, None], (("4", 1), ("3", 1))),
        ([None, None], ()),
    ],
)
def test_most_votes_come_first(answers: list[Any], votes: tuple[Any, ...]) -> None:
    """Equal numbers are one answer under its first spelling; what was not read has no vote, whatever its number."""
    assert count_votes(answers) == votes


def test_tie_is_won_by_the_answer_that_was_given_first() -> None:
    """The order of the samples settles it, and it is known as a tie."""
    assert count_votes(["7", "5", "5", "7"])[0] == ("7", 2)
    assert count_votes(["5", "7", "7", "5"])[0] == ("5", 2)
    assert is_tied(count_votes(["7", "5", "5", "7"]))
    assert not is_tied(count_votes(["7", "5", "5"]))
    assert not is_tied(count_votes([None, "5"]))
    assert not is_tied(())


def row(*answers: str | None) -> dict[str, Any]:
    """A prediction as it is stored."""
    return {"votes": [list(v) for v in count_votes(answers)], "samples": [{"predicted": a} for a in answers]}


def test_figures_of_a_cell() -> None:
    """Agreement is the winner's share of all samples; ties are counted per prompt, unread samples each."""
    rows = [row("1", "1", "1", None), row("1", "2", "1", "2"), row(None, None, None, None)]
    assert summarize_votes(rows) == {
        "samples": 4,
        "agreement": pytest.approx((0.75 + 0.5 + 0) / 3),
        "ties": 1,
        "unread_samples": 5,
    }
    assert summarize_votes([{"predicted": 1}]) == {}


def test_figures_of_a_method_are_the_means_of_its_cells() -> None:
    """The number of samples stays a number of samples."""
    cells = [summarize_votes([row("1", "1")]), summarize_votes([row("1", "2")])]
    assert mean_votes(cells) == {"samples": 2, "agreement": 0.75, "ties": 0.5, "unread_samples": 0.0}
    assert mean_votes([{"accuracy": 1.0}]) == {}
