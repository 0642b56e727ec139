"""Make text safe for a terminal: characters that it would obey become pictures of themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable, RenderableType

#: Control characters and what is shown for each: its picture, or a sign for one that has none. Tabs and line ends stay.
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
PICTURES |= {0x7F: 0x2421, 0x2028: 0x2424, 0x2029: 0x2424}
#: C1 controls, what turns the direction of writing around, and halves of characters.
_WITHOUT_PICTURE = (range(0x80, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A), range(0xD800, 0xE000))
PICTURES |= {code: 0xFFFD for codes in _WITHOUT_PICTURE for code in codes}


def make_visible(text: str) -> str:
    """Return text with a picture, one character wide, for every character that a terminal would obey."""
    return text.translate(PICTURES)


def guard_streams() -> None:
    """Let everything that is printed from now on pass through `make_visible`, but for what `make_console` prints."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not hasattr(stream.write, "unguarded"):
            with suppress(AttributeError):  # a stream of somebody's own that allows no other `write`
                stream.write = _guard(stream.write)  # type: ignore[method-assign]


def _guard(write: Callable[[str], int]) -> Callable[[str], int]:
    def guarded(text: str) -> int:
        start = "\r" if text.startswith("\r") else ""  # progress bars of libraries begin so
        write(start + make_visible(text[len(start) :]))
        return len(text)

    guarded.unguarded = write  # type: ignore[attr-defined]
    return guarded


class _Unguarded:
    """A guarded stream for whoever makes text visible itself and then adds colours."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        write = self._stream.write
        return int(getattr(write, "unguarded", write)(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_console(*, stderr: bool = False) -> Console:
    """Return a rich console whose texts are visible, and that leaves brackets in them alone."""
    from rich.console import Console, RenderHook
    from rich.segment import Segment

    class Visible:
        def __init__(self, renderable: RenderableType) -> None:
            self.renderable = renderable

        def __rich_console__(self, console: Console, options: Any) -> Iterable[Segment]:
            for segment in console.render(self.renderable, options):
                yield segment if segment.control else Segment(make_visible(segment.text), segment.style)

    class Hook(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Visible(each) for each in renderables]

    stream: Any = _Unguarded(sys.stderr if stderr else sys.stdout)
    console = Console(file=stream, stderr=stderr, markup=False, highlight=False, emoji=False)
    console.push_render_hook(Hook())
    return console
