"""The prompt as the model sees it: every character, no markup, parts and loss told apart."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from promptkit.report.prompt_view import (
    STYLES,
    print_counts,
    print_parts,
    print_tokens,
    view_parts,
    view_tokens,
)

PARTS = [("instruction", "Is it [bold]good[/bold]? \n\n"), ("input", "a\tb \nAnswer:"), ("target", " yes")]


def console() -> tuple[Console, io.StringIO]:
    """Return a console of 20 columns without colours, and what is written to it."""
    stream = io.StringIO()
    return Console(file=stream, width=20, color_system=None), stream


def test_the_text_is_the_prompts() -> None:
    """The characters are those of the prompt, markup and white space included, and are not wrapped."""
    made, stream = console()
    print_parts([("input", "[bold]:smile: " + "long " * 20 + "\n  x")], made, legend=False)
    assert stream.getvalue() == "[bold]:smile: " + "long " * 20 + "\n  x\n"


@given(st.lists(st.tuples(st.sampled_from(list(STYLES)), st.text()), max_size=4))
def test_no_character_is_lost(parts: list[tuple[str, str]]) -> None:
    """Every character is there; control characters, and only they, are replaced one for one."""
    whole = "".join(text for _, text in parts)
    shown = view_parts(parts).plain
    assert len(shown) == len(whole)
    for character, seen in zip(whole, shown, strict=True):
        control = (ord(character) < 32 and character not in "\t\n") or 0x7F <= ord(character) < 0xA0
        assert (seen != character) == control


def test_control_characters_are_pictures() -> None:
    """What a terminal would obey is shown instead."""
    assert view_parts([("input", "a\x1b[31mb\r\n\x00\x7f\x9b")]).plain == "a␛[31mb␍\n␀␡\N{REPLACEMENT CHARACTER}"


def test_white_space_can_be_seen() -> None:
    """Spaces at a line's end, tabs and newlines are marked; other spaces stay."""
    shown = view_parts([*PARTS, ("separator", "  ")], whitespace=True).plain
    assert shown == "Is it [bold]good[/bold]?·↵\n↵\na→\tb·↵\nAnswer: yes··"


def test_a_space_before_the_next_part_is_not_at_the_end() -> None:
    """White space is judged in the whole prompt, not in each part."""
    assert view_parts([("input", "Answer: "), ("target", "yes")], whitespace=True).plain == "Answer: yes"


def test_each_kind_has_its_colour() -> None:
    """Each part is in the style of its kind, and the legend shows each kind once."""
    view = view_parts(PARTS)
    assert [str(span.style) for span in view.spans] == [STYLES[kind] for kind, _ in PARTS]
    made, stream = console()
    print_parts([*PARTS, *PARTS], made)
    assert stream.getvalue().splitlines()[0] == "instruction · input · target"


def test_tokens_with_loss_are_marked() -> None:
    """Tokens with loss stand out without colours too, and are counted."""
    tokens = [("Answer", False), (":", False), (" y", True), ("es", True)]
    assert view_tokens(tokens).plain == "Answer:⟦ yes⟧"
    assert view_tokens([*tokens, ("\n", False)]).plain == "Answer:⟦ yes⟧\n"
    made, stream = console()
    print_tokens(tokens, made)
    assert stream.getvalue().endswith("\n4 tokens, 2 with loss\n")


def test_tokens_next_to_each_other_differ() -> None:
    """Where one token ends and the next begins can be seen: every second one is underlined."""
    styles = [str(span.style) for span in view_tokens([("a", False), ("b", False), ("c", False)]).spans]
    assert styles == ["dim", "dim underline", "dim"]


def test_counts_per_kind() -> None:
    """The tokens of each kind are summed over all parts."""
    made, stream = console()
    print_counts([("input", 10), ("target", 1), ("input", 1200)], made)
    assert stream.getvalue() == "1,211 tokens: input 1,210, target 1\n"
