"""Gather the records that a training set may use, apart from those it is tested on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptkit.building.mixture import Mixture
from promptkit.data.copies import Findings, Survey, find_copies, find_overlap, keep_all, survey_records
from promptkit.data.local import Data
from promptkit.data.record import Record
from promptkit.data.records import describe_source, has_split, hash_order, is_one_file, iterate_records
from promptkit.data.splits import find_half
from promptkit.data.tasks import Task
from promptkit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAIN, VALIDATION = "train", "validation"
#: The splits that another one must share no record with: training yields to both, validation to the test.
_LATER = {TRAIN: (VALIDATION, "test"), VALIDATION: ("test",), "test": ()}


@dataclass(frozen=True)
class CandidateSource:
    """The data of one or several parts of a mixture; `name` is that of the first of them."""

    name: str
    task: Task
    data: Data | None

    def later(self, split: str) -> list[str]:
        """Return the splits of these data that `split` must share no record with."""
        if is_one_file(self.data):
            return []  # one file is every split: there is nothing to tell training and test apart by
        others = _LATER.get(split, (VALIDATION, "test"))
        return [other for other in others if has_split(self.task, other, self.data) and not self._is_same(split, other)]

    def _is_same(self, split: str, other: str) -> bool:
        places = [describe_source(self.task, each, self.data) for each in (split, other)]
        return places[0] == places[1] and not self.task.data.generator


@dataclass(frozen=True)
class Candidates:
    """The records of one task's split: which of them were left out and why, and what of the rest is taken.

    `split` is where they are read from; `tested` are the splits they were compared with, of all sources, and the hex
    SHA-256 of each; `has_test` says whether its own source has one, or was cut in two.
    """

    task: Task
    data: Data | None
    split: str
    survey: Survey
    findings: Findings
    seed: int = 0
    tested: Mapping[str, str] = field(default_factory=dict)
    has_test: bool = True

    @property
    def place(self) -> str:
        """Where the records come from, in words."""
        return describe_source(self.task, self.split, self.data)

    def deal(self, *, balance: bool = False) -> NDArray[Any]:
        """Return the places of the kept records, shuffled by the seed; with `balance` as many of each label, in turn.

        Raises DataError where there are none, or labels to be balanced are not fixed or have no record.
        """
        import numpy

        kept = numpy.flatnonzero(self.findings.kept)
        if not len(kept):
            what = f"all {len(self.findings.codes)} were left out" if len(self.findings.codes) else "it has none"
            raise DataError(f"no records are left of split {self.split!r} of task {self.task.name!r} ({what})")
        kept = kept[numpy.argsort(self.survey.ranks[kept], kind="stable")]
        return self._balance(kept) if balance else kept

    def _balance(self, kept: NDArray[Any]) -> NDArray[Any]:
        import numpy

        if not self.task.labels:
            raise DataError(f"task {self.task.name!r} has no fixed labels to balance; leave out `balance`")
        answers = self.survey.answers[kept]
        strands = [kept[answers == index] for index in range(len(self.task.labels))]
        for label, strand in zip(self.task.labels, strands, strict=True):
            if not len(strand):
                raise DataError(f"task {self.task.name!r}: no record has the label {label!r}, nothing can be balanced")
        fewest = min(len(strand) for strand in strands)
        turns = sorted(range(len(strands)), key=lambda index: hash_order(self.seed, f"label {index}"))
        return numpy.stack([strands[index][:fewest] for index in turns], axis=1).ravel()

    def read(self, places: NDArray[Any]) -> Iterator[Record]:
        """Yield the records at these places, in the order of the data."""
        import numpy

        wanted = numpy.zeros(len(self.findings.codes), dtype=bool)
        wanted[places] = True
        records = iterate_records(self.task, self.split, data=self.data)
        return itertools.compress(records, wanted.tobytes())

    def removed_ids(self, most: int) -> dict[str, list[str]]:
        """Return reason -> ids of the records it removed, in the order of the data, the first `most` of them."""
        import numpy

        codes, reasons = self.findings.codes, self.findings.reasons
        places = [numpy.flatnonzero(codes == code)[:most] for code in range(1, len(reasons))]
        named = numpy.sort(numpy.concatenate(places)) if places else codes[:0]
        found: dict[str, list[str]] = {}
        for place, record in zip(named.tolist(), self.read(named) if len(named) else (), strict=True):
            found.setdefault(reasons[codes[place]], []).append(record.id)
        return found

    def gather(self, places: NDArray[Any]) -> list[Record]:
        """Return the records at these places, in the order of the places."""
        import numpy

        found = dict(zip(numpy.sort(places).tolist(), self.read(places), strict=True))
        return [found[place] for place in places.tolist()]


def gather_candidates(sources: Sequence[CandidateSource], mixture: Mixture) -> list[Candidates]:
    """Return the candidates of each source, with what `mixture` says is left out: copies, overlap, what is held out.

    Records are read once, those that are tested on as well; hashes of them are kept.
    """
    read, cut = _choose_records(mixture)
    near, keys = mixture.copies == "near", mixture.copies != "keep"
    surveys = [
        survey_records(iterate_records(source.task, read, data=source.data), seed=mixture.seed, keys=keys)
        for source in sources
    ]
    findings = [keep_all(len(survey.ranks)) for survey in surveys]
    halves = _first_halves(sources) if cut else {}
    for place, first in halves.items():
        findings[place] = findings[place].mark(first, "set aside for the test, as this is one file")
    tested: dict[str, Survey] = {}
    if keys and read != "test":
        tested = dict(_survey_tests(sources, read))
        cut_off = {f"the test half of {sources[at].name}": surveys[at].at(half) for at, half in halves.items()}
        findings = _find_overlaps(surveys, findings, {**tested, **cut_off}, near=near)
        questions = [(source.task.labels, source.task.templates) for source in sources]
        findings = find_copies(surveys, findings, questions, near=near)
    if mixture.hold_out:
        findings = _hold_out(sources, surveys, findings, mixture)
    digests = {name: survey.digest for name, survey in tested.items()}
    return [
        Candidates(
            source.task,
            source.data,
            read,
            survey,
            found,
            mixture.seed,
            digests,
            at in halves or bool(source.later(read)),
        )
        for at, (source, survey, found) in enumerate(zip(sources, surveys, findings, strict=True))
    ]


def _choose_records(mixture: Mixture) -> tuple[str, bool]:
    """Return the split that records are read from, and whether one file for all splits is cut in two.

    What is held out belongs to the training records that the same mixture makes.
    """
    held_out = mixture.split == VALIDATION and mixture.hold_out > 0
    read = TRAIN if mixture.split is None or held_out else mixture.split
    return read, mixture.split is None or held_out


def _first_halves(sources: Sequence[CandidateSource]) -> dict[int, NDArray[Any]]:
    """Return, of the sources that are one file, the places of the records that `data.splits` cuts for the test."""
    import numpy

    return {
        at: numpy.array(sorted(_find_half(source))) for at, source in enumerate(sources) if is_one_file(source.data)
    }


def _find_half(source: CandidateSource) -> set[int]:
    ids = [record.id for record in iterate_records(source.task, "test", data=source.data)]
    return find_half(ids, source.data or "")


def _survey_tests(sources: Iterable[CandidateSource], split: str) -> Iterator[tuple[str, Survey]]:
    """Yield (name, survey) of every split that `split` of any of the sources must share no record with."""
    for source in sources:
        for other in source.later(split):
            records = iterate_records(source.task, other, data=source.data, labelled=False)
            yield f"the {other} split of {source.name}", survey_records(records, seed=0)


def _hold_out(
    sources: Sequence[CandidateSource], surveys: Sequence[Survey], findings: Sequence[Findings], mixture: Mixture
) -> list[Findings]:
    """Mark what is held out in training, with every record of any source that is its copy; in validation all others."""
    ranked = [
        _rank_kept(survey, found, source, mixture.hold_out)
        for survey, found, source in zip(surveys, findings, sources, strict=True)
    ]
    last = slice(-mixture.hold_out, None)
    if mixture.split == VALIDATION:
        return [
            found.mark(places[: last.start], "kept for training")
            for found, places in zip(findings, ranked, strict=True)
        ]
    if mixture.split not in (None, TRAIN):
        return list(findings)
    marked = [
        found.mark(places[last], "held out for validation") for found, places in zip(findings, ranked, strict=True)
    ]
    if mixture.copies == "keep":
        return marked
    held = {
        f"the held-out records of {source.name}": survey.at(places[last])
        for source, survey, places in zip(sources, surveys, ranked, strict=True)
    }
    return _find_overlaps(surveys, marked, held, near=mixture.copies == "near")


def _find_overlaps(
    surveys: Sequence[Survey], findings: Sequence[Findings], tested: Mapping[str, Survey], *, near: bool
) -> list[Findings]:
    return [find_overlap(survey, found, tested, near=near) for survey, found in zip(surveys, findings, strict=True)]


def _rank_kept(survey: Survey, found: Findings, source: CandidateSource, count: int) -> NDArray[Any]:
    """Return the places of the kept records by rank, the last `count` of which no limit reaches before it must."""
    import numpy

    kept = numpy.flatnonzero(found.kept)
    if count >= len(kept):
        raise DataError(f"task {source.task.name!r}: {count} records cannot be held out of {len(kept)}; hold out fewer")
    ranked: NDArray[Any] = kept[numpy.argsort(survey.ranks[kept], kind="stable")]
    return ranked
