"""Vote among the answers of several samples: self-consistency (Wang et al. 2022, arXiv 2203.11171)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from promptkit.data.answers import same_answer

Answer = int | str | None  # the index of a choice, a text, or nothing that could be read
Votes = tuple[tuple[int | str, int], ...]
#: What `summarize_votes` returns.
VOTE_FIGURES = ("samples", "agreement", "ties", "unread_samples")


def count_votes(answers: Sequence[Answer]) -> Votes:
    """Return (answer, votes), most votes first; of as many, the answer that was given first.

    So the first pair is the winner, and ties are won by the sample of the lowest number. Texts are counted
    together where they are the same answer ("$29.00" and "29"), under the first one's spelling. An answer that
    was not read (None) is no vote; without any, nothing comes back.
    """
    votes: dict[int | str, int] = {}
    for answer in (answer for answer in answers if answer is not None):
        known = next((other for other in votes if _is_same(answer, other)), answer)
        votes[known] = votes.get(known, 0) + 1
    return tuple(sorted(votes.items(), key=lambda pair: -pair[1]))


def is_tied(votes: Sequence[Sequence[Any]]) -> bool:
    """Whether the winner has no more votes than the next."""
    return len(votes) > 1 and votes[0][1] == votes[1][1]


def summarize_votes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a cell whose predictions were voted on; nothing where they were not.

    `samples` is how many texts each prompt got, `agreement` the mean share of them that voted for the winner,
    `ties` the number of prompts whose winner shares the most votes, `unread_samples` the number of texts, of all
    prompts, without an answer.
    """
    voted = [row for row in rows if row.get("samples")]
    if not voted:
        return {}
    return {
        "samples": len(voted[0]["samples"]),
        "agreement": fmean(row["votes"][0][1] / len(row["samples"]) if row["votes"] else 0.0 for row in voted),
        "ties": sum(is_tied(row["votes"]) for row in voted),
        "unread_samples": sum(sample["predicted"] is None for row in voted for sample in row["samples"]),
    }


def mean_votes(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of the figures of `summarize_votes` over the cells of a method; nothing where there are none."""
    if "samples" not in cells[0]:
        return {}
    return {key: cells[0][key] if key == "samples" else fmean(cell[key] for cell in cells) for key in VOTE_FIGURES}


def _is_same(answer: int | str, other: int | str) -> bool:
    if isinstance(answer, str) and isinstance(other, str):
        return same_answer(answer, other)
    return answer == other
