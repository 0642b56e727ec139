"""Show a prompt's parts or tokens as coloured text, exactly as the model sees them.

Prompts are data: nothing of them is read as rich markup, and control characters, which a terminal
would obey, appear as their pictures (`␛`). Lines are never wrapped here, since a line break would
look like one of the prompt's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from promptkit.report.terminal import PICTURES

STYLES = {
    "instruction": "magenta",
    "separator": "dim",
    "input": "cyan",
    "rationale": "yellow",
    "target": "bold green",
}
TRAINED, READ = "bold green", "dim"


def view_parts(parts: Sequence[tuple[str, str]], *, whitespace: bool = False) -> Text:
    """Return the parts, (kind, text) each, in the colours of their kinds.

    With `whitespace`, spaces at the end of a line or of the prompt are `·`, tabs `→`, newlines `↵`.
    """
    whole = "".join(text for _, text in parts)
    shown = _visible(whole, whitespace=whitespace)
    view, start = Text(), 0
    for kind, text in parts:
        end = start + len(text)
        view.append("".join(shown[start:end]), style=STYLES.get(kind, ""))
        start = end
    return view


def view_tokens(tokens: Sequence[tuple[str, bool]], *, whitespace: bool = False) -> Text:
    """Return the tokens, (text, has loss) each: every second one underlined, those with loss in green.

    Tokens with loss stand in ⟦ ⟧ too, so that they are told apart without colours.
    """
    view, inside = Text(), False
    for index, (text, trained) in enumerate(tokens):
        if trained != inside:
            view.append("⟦" if trained else "⟧", style="bold")
            inside = trained
        shown = "".join(_visible(text, whitespace=whitespace))
        view.append(shown, style=(TRAINED if trained else READ) + (" underline" if index % 2 else ""))
    return view.append("⟧" if inside else "", style="bold")


def print_parts(
    parts: Sequence[tuple[str, str]], console: Console, *, whitespace: bool = False, legend: bool = True
) -> None:
    """Print a prompt's parts, before them what each colour means."""
    if legend:
        _print(console, view_legend([kind for kind, _ in parts]))
    _print(console, view_parts(parts, whitespace=whitespace))


def print_tokens(tokens: Sequence[tuple[str, bool]], console: Console, *, whitespace: bool = False) -> None:
    """Print a pair's tokens, and how many of them have loss."""
    trained = sum(has_loss for _, has_loss in tokens)
    _print(console, view_tokens(tokens, whitespace=whitespace))
    _print(console, Text(f"{len(tokens):,} tokens, {trained:,} with loss", style="dim"))


def print_counts(counts: Sequence[tuple[str, int]], console: Console) -> None:
    """Print how many tokens each kind of part has, (kind, tokens) each, and how many there are in all."""
    sums: Counter[str] = Counter()
    for kind, tokens in counts:
        sums[kind] += tokens
    line = Text(f"{sums.total():,} tokens: ", style="dim")
    for index, (kind, tokens) in enumerate(sums.items()):
        line.append(f"{', ' if index else ''}{kind} {tokens:,}", style=STYLES.get(kind, ""))
    _print(console, line)


def view_legend(kinds: Sequence[str]) -> Text:
    """Return each kind once, in its colour."""
    legend = Text()
    for index, kind in enumerate(dict.fromkeys(kinds)):
        legend.append(" · " if index else "", style="dim")
        legend.append(kind, style=STYLES.get(kind, ""))
    return legend


def _visible(text: str, *, whitespace: bool) -> list[str]:
    """Return what is shown for each character of a text."""
    shown = list(text.translate(PICTURES))
    if not whitespace:
        return shown
    at_end = True
    for index in range(len(text) - 1, -1, -1):
        if text[index] == " " and at_end:
            shown[index] = "·"
        at_end = text[index] == "\n" or (at_end and text[index] == " ")
        shown[index] = {"\n": "↵\n", "\t": "→\t"}.get(text[index], shown[index])
    return shown


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True, highlight=False)


def print_view(view: View, console: Console) -> None:
    """Print a prompt: its parts, their tokens' numbers, its training pair's tokens, its choices."""
    console.rule(f"{view.template} · {view.id}", align="left")
    print_parts(view.parts, console, whitespace=True)
    print_counts(view.counts, console)
    console.rule("the training pair's tokens, those with loss in ⟦ ⟧", align="left", style="dim")
    print_tokens(view.tokens, console, whitespace=True)
    for choice in view.choices:
        console.print(f"choice {choice!r}")


@dataclass(frozen=True)
class View:
    """One prompt as a reader sees it: its parts, its choices and, answer included, its tokens.

    `parts` are (kind, text), `counts` (kind, tokens), `tokens` (text, whether training puts a loss on it): with
    the token that training puts behind an answer that is not one of the choices.
    """

    id: str
    template: str
    parts: list[tuple[str, str]]
    choices: list[str]
    counts: list[tuple[str, int]]
    tokens: list[tuple[str, bool]]
