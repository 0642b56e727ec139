"""Render drawings as files for a paper, and as SVG that takes its colours from the page it is in."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptkit.report.canvas import INK, LINES, PAPER, QUIET, SERIES, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = ("svg", "png", "pdf")
#: Colours of a drawing and the page's variables that stand for them.
VARIABLES = {INK: "ink", QUIET: "quiet", LINES: "lines", PAPER: "paper"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES)
}
_STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": LINES,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.hashsalt": "promptkit",
    "pdf.fonttype": 42,
}
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Drawing:
    """A drawing as files for a paper (name -> content), and as an SVG element for the page."""

    files: Mapping[str, bytes]
    inline: str


def render_plot(plot: Plot) -> Drawing:
    """Return the drawing as `NAME.svg`, `NAME.png` and `NAME.pdf` on white, and for the page.

    The same plot gives the same bytes.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Names may hold any script; the page's font has it, a PNG shows a box.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = plot.draw()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out now, once for all files
        files = {f"{plot.name}.{suffix}": _save(figure, suffix, {}) for suffix in SUFFIXES}
        inline = _save(figure, "svg", {"svg.fonttype": "none", "savefig.facecolor": "none"})
    return Drawing(files, _fit_page(inline.decode(), plot.name))


def _save(figure: Figure, suffix: str, settings: Mapping[str, Any]) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.facecolor": "white", **settings}):
        figure.savefig(buffer, format=suffix, dpi=200, metadata=_METADATA[suffix])
    return buffer.getvalue()


def _fit_page(text: str, name: str) -> str:
    """Return the SVG as an element of a page: its text as text, its colours as the page's variables.

    Its ids begin with `name`, so that several drawings share a page. It refers to `NAME-title` and `NAME-about`,
    which the page has to have.
    """
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = re.sub(rf"(?<=[ :]){colour}(?=[;\"])", f"var(--{variable})", text, flags=re.I)
    text = re.sub(r"font: (?:\d+ )?([\d.]+px) [^;\"]*", r"font: \g<1> var(--font)", text)
    found = re.search(r'viewBox="[^"]*"', text)
    assert found, "matplotlib writes a viewBox"
    head = f'<svg {found[0]} role="img" aria-labelledby="{name}-title" aria-describedby="{name}-about">'
    return re.sub(r"<svg [^>]*>", lambda _: head, text, count=1)
