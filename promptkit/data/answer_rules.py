"""Read an answer from what a model wrote, by a regular expression or by a named rule for numbers.

A rule reads a number right or not at all: of two numbers none is the answer,
nor is a part of one: `5:30`, `10,00`, `5-7`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import regex

from promptkit.data.patterns import compile_pattern
from promptkit.errors import PatternError

#: What a template may name in place of a regular expression.
RULES = ("number", "final-number", "number else last-number", "final-number else last-number")

_GROUPED = r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:\ \d{3})+(?!\ ?[/\d])|\d+"
_PLAIN = rf"(?:(?:{_GROUPED})(?:\.\d+)?|\.\d+)"
#: A sign and a currency in either order, a number, and what makes it another: a power, a fraction, a multiplier.
_NUMBER = regex.compile(
    rf"""(?P<sign>[-+]?)(?:(?:US|CA|AU|HK|[CA])?\p{{Sc}}\ ?)?(?P<inner>(?<=\p{{Sc}}\ ?)[-+])?
    (?:(?P<whole>\d+)(?:\ and\ |\ )(?P<part>\d+\ ?/\ ?\d+)
      |(?P<top>{_PLAIN})\ ?/\ ?(?P<bottom>{_PLAIN})
      |(?P<factor>{_PLAIN})\ ?[x×*·]\ ?10(?:\^|\*\*)\{{?(?P<ten>[-+]?\d+)\}}?
      |(?P<base>{_PLAIN})(?:\^|\*\*)\{{?(?P<power>[-+]?\d+)\}}?
      |(?P<value>{_PLAIN})(?:[eE](?P<e>[-+]?\d+))?)
    (?:\ ?(?P<times>hundred|thousand|million|billion|trillion|dozen)\b)?""".replace("\\d", "[0-9]"),
    regex.X,
)
_TIMES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_BEFORE = regex.compile(r"[\w.,:/^*)\\<>≤≥±#]$|\w-$|[\d)] ?[-+*/×÷^:]+ ?$|[-+]$|(?:^|\s)[-+] $")
_AFTER = regex.compile(
    r"(?:[kKMBT]|bn|mn)\b|_\w|\p{L}+\d|[-:/^*×÷][\w($-]|[,.:]\d|(?: ?[-+*/×÷^] ?| x )[\d(.$-]"
    r"|(?: and an?)? half| and a (?:quarter|third)"
)
_PHRASE = regex.compile(
    r"####|\\boxed(?=\{)|\banswer(?:\s+\w+){0,4}?\s+(?:is|are|equals|would\s+be|should\s+be|must\s+be)\b\s*:?|\banswer\s*[:=]",
    regex.I,
)
_NO = regex.compile(r"(?:\bnot|n't|n’t|\bnever|\bdoubt|\bwrong)\b[^.!?\n]{0,40}$", regex.I)
_NOT_THIS = regex.compile(r"\s*(?:not|never)\b", regex.I)
_REST = regex.compile(r",?\s*\b(?:not|instead of|rather than)\s+\S*\d\S*", regex.I)
_SENTENCE = regex.compile(r"[.!?](?=\s)|[.!?]\Z|\n")
_STATED = regex.compile(r"\s*(?:[,;]|\(|because\b|since\b|as\b)", regex.I)
_NOTHING_MORE = regex.compile(r"\s*(?:\p{Sc}|%)?[.]?\s*")
_LONGEST, _POWER, _SEARCHED = 400, 1000, 20_000  # characters; answers stand at the end
_FRACTION = regex.compile(r"(-?)\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_DROPPED = (
    (regex.compile(r"</?[a-zA-Z][^<>]{0,80}>"), ""),
    (regex.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (regex.compile(r"\{,\}|\\!"), ","),
    (regex.compile(r"\\[,;:  ]|~"), " "),
    (regex.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "*"),
    (regex.compile(r"\\div(?![a-zA-Z])"), "/"),
    (regex.compile(r"\\([$%])"), r"\1"),
    (regex.compile(r"\\[()\[\]]"), ""),
    (regex.compile(r"(\*\*|__)(?=\S)(.{1,200}?)(?<=\S)\1"), r"\2"),
    (regex.compile(r"(?<![\w*_])([*_`])(?=[^\s*_`])([^*_`\n]{1,200})\1(?![\w*_])"), r"\2"),
    (regex.compile(r"(?<=\d)\$|\$(?=[.,;!?)]?(?:\s|$))"), ""),
    (regex.compile(r"(?<![\d.)]\s)(?<![\w.)])(?:minus|negative)\s+(?=\p{Sc}?[.\d])", regex.I), "-"),
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def check_rule(rule: str) -> None:
    """Raise PatternError for what is neither a rule's name nor a regular expression with a group."""
    if rule not in RULES and compile_pattern(rule).groups < 1:
        raise PatternError(
            f"{rule!r} has no group; put the part that is the answer into (…), or name a rule: {', '.join(RULES)}"
        )


def read_rule(text: str, rule: str) -> str | None:
    """Return the answer in what a model wrote, trimmed; None where the rule reads none.

    A regular expression gives group 1 of its first match; a rule gives a number as `as_text` writes it.
    """
    if rule not in RULES:
        found = compile_pattern(rule).search(text)
        answer = found[1].strip() if found and found[1] else ""
        return answer or None
    name, _, otherwise = rule.partition(" else ")
    number = _read(text[-_SEARCHED:], needs_phrase=name == "final-number", otherwise=bool(otherwise))
    answer = "" if number is None else as_text(number)
    return answer if 0 < len(answer) <= _LONGEST else None  # `parse_number` reads no longer one


@lru_cache(maxsize=4096)
def parse_number(text: str) -> Fraction | None:
    """Return the number that a whole text writes, such as `-$1,234.50`, `3/4`, `.5`, `1 000` or `50%`, else None."""
    if len(text) > _LONGEST:
        return None
    text = _tidy(text).strip()
    found = _NUMBER.match(text)
    if found is None or not _NOTHING_MORE.fullmatch(text, found.end()):
        return None
    return _value(found)


def as_text(number: Fraction) -> str:
    """Return a number as people write it: `7`, `0.75`, and `1/3` where no decimal is exact."""
    whole = number.denominator
    for prime in (2, 5):
        while whole % prime == 0:
            whole //= prime
    if whole != 1:
        return f"{number.numerator}/{number.denominator}"
    places = 0
    while (number * 10**places).denominator != 1:
        places += 1
    digits = str(abs(int(number * 10**places))).rjust(places + 1, "0")
    sign = "-" if number < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def _read(text: str, *, needs_phrase: bool, otherwise: bool) -> Fraction | None:
    text = _tidy(text)
    phrases = [found for found in _PHRASE.finditer(text) if _is_said(text, found)]
    if phrases:
        last = phrases[-1]
        segment = text[last.end() :]
        if last[0].startswith("\\"):
            return _only(_inside(segment))
        return _only(_sentence(segment))
    if not needs_phrase and not _PHRASE.search(text) and (number := _only(text)) is not None:
        return number
    numbers = list(_numbers(text)) if otherwise else []
    return numbers[-1][1] if numbers else None


def _is_said(text: str, phrase: regex.Match[str]) -> bool:
    return not (_NO.search(text[max(0, phrase.start() - 80) : phrase.start()]) or _NOT_THIS.match(text, phrase.end()))


def _sentence(text: str) -> str:
    text = text.lstrip()
    ends = (found.start() for found in _SENTENCE.finditer(text))
    return text[: next(ends, len(text))]


def _inside(text: str) -> str:
    """Return what stands in the braces that a text begins with."""
    depth = 0
    for at, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[1:at]
    return text[1:]


def _only(text: str) -> Fraction | None:
    """Return the one number of a statement: the value after its last equals sign, or the only one there is."""
    text = _REST.sub("", text)
    before, equals, result = text.rpartition("=")
    numbers = list(_numbers(result))
    if equals:
        first = next(_numbers(before), None)
        if first and first[1] is not None and _STATED.match(before, first[0]) and not before[: first[2]].strip():
            numbers.append(first)  # "7, because 3 + 4 = 7"
    elif len(numbers) > 1 and _STATED.match(result, numbers[0][0]) and result[numbers[0][0] :].lstrip()[0] == "(":
        numbers = numbers[:1]  # "72 (8 dozens and 6)"
    values = {value for _, value, _ in numbers}
    return values.pop() if len(values) == 1 else None


def _numbers(text: str) -> Iterator[tuple[int, Fraction | None, int]]:
    """Yield where each number ends, its value (None for what is only a part of something) and where it begins."""
    at = 0
    while found := _NUMBER.search(text, at):
        at = max(found.end(), at + 1)
        start = found.start()
        head = text[max(0, start - 12) : start]
        if regex.search(r"\p{L}[-_^]?$|_$", head) and not found["sign"]:
            while at < len(text) and (text[at].isalnum() or text[at] in "_-"):
                at += 1
            continue  # a name with digits, such as B12
        torn = _BEFORE.search(head) or _AFTER.match(text, found.end())
        yield found.end(), None if torn else _value(found), start


def _value(found: regex.Match[str]) -> Fraction | None:
    if len(found[0]) > _LONGEST:
        return None
    signs = (found["sign"] or "") + (found["inner"] or "")
    if len(signs) > 1:
        return None
    try:
        number = _unsigned(found)
    except (ZeroDivisionError, OverflowError):
        return None
    if number is None:
        return None
    return (-1 if signs == "-" else 1) * number * _TIMES.get(found["times"] or "", 1)


def _unsigned(found: regex.Match[str]) -> Fraction | None:
    if found["whole"] is not None:
        return _decimal(found["whole"]) + Fraction(found["part"].replace(" ", ""))
    if found["top"] is not None:
        return _decimal(found["top"]) / _decimal(found["bottom"])
    base, power = (found["factor"] and "10") or found["base"], found["ten"] or found["power"] or found["e"] or "0"
    if abs(int(power)) > _POWER:
        return None
    if base is None:
        return _decimal(found["value"]) * Fraction(10) ** int(power)
    factor = _decimal(found["factor"]) if found["factor"] else Fraction(1)
    return factor * _decimal(base) ** int(power)


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))


def _tidy(text: str) -> str:
    """Return a text with one sign for each: digits, minus, spaces, fractions; without what only makes it bold."""
    text = regex.sub(r"(?<=[\p{L}\d)])[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    text = regex.sub(r"(?<=\d)([¼-¾⅐-⅞])", r" \1", text)
    text = unicodedata.normalize("NFKC", text)
    text = regex.sub(r"[\u2212\u2012\u2013\ufe63\u2010\u2011]", "-", text).replace("\u2044", "/").replace("\u2215", "/")
    text = _FRACTION.sub(r"\1\2/\3", text)
    for pattern, shown in _DROPPED:
        text = pattern.sub(shown, text)
    return text
