"""Find records that are exact or near copies of one another, or of records that are tested on.

Nothing but 64-bit hashes is kept of a record, 32 bytes in all: of 10 million different records two share a hash, so
that one of them is removed by mistake, with a chance of 3 in a million.
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import regex

from promptkit.data.record import Record
from promptkit.data.records import hash_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Where a tokenizer tears words apart: it 's, did n't, can not, u . s .; and what it puts before a slash: \\/.
_TORN = regex.compile(
    r" (?=(?:'(?:s|re|ve|ll|d|m|t)|n't)\b)|(?<=\bcan) (?=not\b)|(?<=\b\p{L}) ?\. ?(?=\p{L}\b)|\\(?=[/*])"
)
#: What is dropped within a word: 1990's, U.S., zero-width characters.
_WITHIN = regex.compile(r"(?<=\d)'(?=\p{L})|(?<![. ])\.(?=\p{L})|\p{Cf}")
#: Quotes, but for the apostrophe within a word (it's, not its) and that of f'(x).
_QUOTES = r"""["“”„«»‹›‘`]|'(?!(?<=\p{L}')\p{L}|(?<=[\p{L}']')'*\()"""
#: Commas and ends of clauses, but for those of numbers: 1,000 or 1.5 or 3 : 2; and != and !p.
_STOPS = r"[,;:.?!…](?!\d|(?<=\d ?.) \d|(?<=!)=|(?<=(?<!\w)!)\p{L})"
#: Dashes, but for the minus of -5, 5 - x, a-b and -x, as of numbers, formulas and options.
_DASHES = r"\p{Pd}(?! ?\d|(?<=(?<!\w)[-–])\p{L})(?<!\b(?:\p{L}|\d+) ?\p{Pd}(?= ?(?:\p{L}|\d+)\b))"
#: All other punctuation that is not before a number, nor one of computing.
_OTHERS = r"[[\p{P}\p{C}]--[\p{Pd}\"'“”„«»‹›‘`,;:.?!…*/%\#\&@\\]](?! ?\d)"
_UNSEEN = regex.compile(f"{_QUOTES}|{_STOPS}|{_DASHES}|{_OTHERS}", regex.V1)
#: Spaces that do not part two words or numbers.
_BESIDE = regex.compile(r"(?<!\w) | (?!\w)")
_UNLABELLED = 2**64 - 1


def normalize_text(text: str) -> str:
    """Return what near copies share: words in lower case, parted by single spaces, and marks that carry meaning.

    Quotes, brackets, commas, hyphens and what ends a sentence are dropped; symbols, marks of computing and those of
    numbers stay.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().replace("’", "'").split())
    text = _WITHIN.sub("", _TORN.sub("", text))
    return _BESIDE.sub("", " ".join(_UNSEEN.sub(" ", text).split()))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


def _hash_all(values: Sequence[Any], fold: Callable[[str], str]) -> int:
    """Return one hash of several texts or lists of texts, each folded, which says where each ends."""
    folded = [_fold(value, fold) for value in values]
    return _hash(folded[0] if len(folded) == 1 and isinstance(folded[0], str) else repr(folded))


def _fold(value: Any, fold: Callable[[str], str]) -> Any:
    return [_fold(each, fold) for each in value] if isinstance(value, list | tuple) else fold(str(value))


def _normalize_or_keep(text: str) -> str:
    return normalize_text(text) or text


@dataclass(frozen=True)
class Survey:
    """What is kept of N records, as unsigned 64-bit numbers [N] each.

    `ranks` order the records after a shuffle by the seed. `exact` and `near` are equal where what is asked is, to the
    byte or as `normalize_text` says, field by field; `answers` where the answer is (a fixed label is its index).
    """

    ranks: NDArray[Any]
    exact: NDArray[Any]
    near: NDArray[Any]
    answers: NDArray[Any]
    digest: str = ""

    @property
    def repeated_ids(self) -> int:
        """How many records have an id that one before them has, and with it the same draws."""
        import numpy

        return len(self.ranks) - len(numpy.unique(self.ranks))

    def at(self, places: NDArray[Any]) -> Survey:
        """Return what is kept of the records at these places; `digest` stays that of all."""
        columns = ("ranks", "exact", "near", "answers")
        return replace(self, **{name: getattr(self, name)[places] for name in columns if len(getattr(self, name))})


def survey_records(records: Iterable[Record], *, seed: int, keys: bool = True) -> Survey:
    """Return the survey of the records, in their order; without `keys`, `exact` and `near` are left empty."""
    import numpy

    ranks, exact, near, answers = (array("Q") for _ in range(4))
    digest = hashlib.sha256()
    for record in records:
        content = (record.id, record.fields, record.label, record.rationale, record.choices)
        digest.update(repr(content).encode("utf-8", "surrogatepass"))
        ranks.append(int.from_bytes(hash_order(seed, record.id)[:8]))
        answers.append(_answer(record))
        if keys:
            fields = [record.fields[name] for name in sorted(record.fields)]  # tasks may list them otherwise
            asked = [*fields, *([record.choices] if record.choices else ())]
            exact.append(_hash_all(asked, str))
            near.append(_hash_all(asked, _normalize_or_keep))
    columns = {"ranks": ranks, "exact": exact, "near": near, "answers": answers}
    read = {name: numpy.frombuffer(numbers, dtype=numpy.uint64) for name, numbers in columns.items()}
    return Survey(**read, digest=digest.hexdigest())


def _answer(record: Record) -> int:
    if record.label is None:
        return _UNLABELLED
    if isinstance(record.label, int) and record.choices is None:
        return record.label
    return _hash(
        record.choices[record.label] if record.choices and isinstance(record.label, int) else str(record.label)
    )


@dataclass(frozen=True)
class Findings:
    """Why each of N records is left out: `codes` [N] are places in `reasons`, whose first is the empty one: kept.

    `conflicts` counts the removed copies whose answer is another than that of the record that stays.
    """

    codes: NDArray[Any]
    reasons: tuple[str, ...] = ("",)
    conflicts: int = 0

    @property
    def kept(self) -> NDArray[Any]:
        """Whether each record stays, bool [N]."""
        return self.codes == 0

    def mark(self, places: NDArray[Any], reason: str) -> Findings:
        """Return the findings with `reason` for those of `places` (bool [N] or indices) that were kept so far."""
        import numpy

        chosen = numpy.zeros(len(self.codes), dtype=bool)
        chosen[places] = True
        chosen &= self.codes == 0
        if not chosen.any():
            return self
        codes = numpy.where(chosen, len(self.reasons), self.codes).astype(numpy.uint16)
        return Findings(codes, (*self.reasons, reason), self.conflicts)

    def count(self) -> dict[str, int]:
        """Return reason -> how many records it removed."""
        return {reason: int((self.codes == code).sum()) for code, reason in enumerate(self.reasons) if code}


def keep_all(count: int) -> Findings:
    """Return findings that leave out none of `count` records."""
    import numpy

    return Findings(numpy.zeros(count, dtype=numpy.uint16))


def find_overlap(survey: Survey, findings: Findings, tested: Mapping[str, Survey], *, near: bool) -> Findings:
    """Mark the records that equal one of `tested`: names such as `the test split of sst2` with their surveys."""
    import numpy

    for name, other in tested.items():
        findings = findings.mark(numpy.isin(survey.exact, other.exact), f"in {name}")
        if near:
            findings = findings.mark(numpy.isin(survey.near, other.near), f"nearly in {name}")
    return findings


def find_tested(records: Sequence[Record], tested: Mapping[str, Iterable[Record]]) -> Findings:
    """Return which records equal one of `tested` or nearly so: what `find_overlap` says of all, in less time.

    Only a record that has the letters and digits of a tested one is looked at closely.
    """
    import numpy

    findings = keep_all(len(records))
    places: dict[int, list[int]] = {}
    for place, record in enumerate(records):
        places.setdefault(_hash(_spell(record)), []).append(place)
    for name, others in tested.items():
        alike = [other for other in others if _hash(_spell(other)) in places]
        if not alike:
            continue
        some = numpy.array(sorted({place for other in alike for place in places[_hash(_spell(other))]}))
        survey = survey_records((records[place] for place in some), seed=0)
        found = find_overlap(survey, keep_all(len(some)), {name: survey_records(alike, seed=0)}, near=True)
        for code, reason in enumerate(found.reasons[1:], 1):
            findings = findings.mark(some[found.codes == code], reason)
    return findings


def _spell(record: Record) -> str:
    """Return the letters and digits of what a record asks, which near copies share."""
    asked = [record.fields[name] for name in sorted(record.fields)]
    text = "\0".join(_list_texts([*asked, *(record.choices or ())]))
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def _list_texts(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _list_texts(each)
    else:
        yield str(value)


def find_copies(
    surveys: Sequence[Survey], findings: Sequence[Findings], questions: Sequence[object], *, near: bool
) -> list[Findings]:
    """Mark all but one of the records that ask the same; the one of the lowest rank stays, of equal ranks the first.

    Records of several sources are copies of each other where `questions` are equal: what is asked of a text belongs to
    what is asked.
    """
    import numpy

    found = list(findings)
    for question in dict.fromkeys(questions):
        places = [place for place, own in enumerate(questions) if own == question]
        owner = numpy.concatenate([numpy.full(len(surveys[at].ranks), at) for at in places])
        local = numpy.concatenate([numpy.arange(len(surveys[at].ranks)) for at in places])
        kept = numpy.concatenate([found[at].kept for at in places])
        joined = Survey(
            *(
                numpy.concatenate([getattr(surveys[at], name) for at in places])[kept]
                for name in ("ranks", "exact", "near", "answers")
            )
        )
        same, later, other = _group(joined, near)
        owner, local = owner[kept], local[kept]
        for at in places:
            mine = owner == at
            marked = found[at].mark(local[mine & same], "a copy of another record")
            marked = marked.mark(local[mine & later], "nearly a copy of another record")
            found[at] = Findings(marked.codes, marked.reasons, int((mine & other).sum()))
    return found


def _group(survey: Survey, near: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return which records are copies of one before them by rank, near copies, and either with another answer."""
    import numpy

    keys = survey.near if near else survey.exact
    order = numpy.lexsort((survey.ranks, keys))
    first = numpy.ones(len(order), dtype=bool)
    first[1:] = keys[order][1:] != keys[order][:-1]
    stays = order[first][numpy.cumsum(first) - 1]  # in sorted order: the record of the group that stays
    removed, kept = order[~first], stays[~first]
    same, later, other = (numpy.zeros(len(order), dtype=bool) for _ in range(3))
    same[removed] = survey.exact[removed] == survey.exact[kept]
    later[removed] = ~same[removed]
    other[removed] = survey.answers[removed] != survey.answers[kept]
    return same, later, other
