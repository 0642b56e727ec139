"""The figure: its files, what is on it, and that its words do not overlap."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptkit.errors import RunError
from promptkit.report.comparison_figure import CLOSEST, FARTHEST, _side_by_side, draw_comparison, save_comparison
from tests.helpers.comparisons import comparison


def templates(*names: str) -> dict[str, Any]:
    """Return a comparison of all conditions under each of the templates."""
    whole = comparison()
    parts = [comparison() for _ in names]
    for part, name in zip(parts, names, strict=True):
        for condition in (*part["methods"], *part["cells"]):
            condition["template"] = name
    for key in ("methods", "cells"):
        whole[key] = [condition for part in parts for condition in part[key]]
    return whole


def words(result: dict[str, Any]) -> tuple[Any, list[tuple[str, Any]]]:
    """Return the box of the figure, and every word drawn on it with its box, in pixels."""
    from matplotlib.axis import Tick
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure = draw_comparison(result)
    FigureCanvasAgg(figure).draw()
    hidden = set()  # matplotlib keeps ticks beyond the axes' ends, and does not draw them
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden |= {tick.label1 for tick in axis.findobj(Tick) if not low <= tick.get_loc() <= high}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text not in hidden]
    return figure.bbox, [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]


def test_svg_and_png_are_written(tmp_path: Path) -> None:
    """Both files are there, the PNG at least 1,000 pixels wide."""
    paths = save_comparison(comparison(), tmp_path)
    assert [path.name for path in paths] == ["compare.svg", "compare.png"]
    assert paths[0].read_text().startswith("<?xml")
    width, _height = struct.unpack(">II", paths[1].read_bytes()[16:24])
    assert width >= 1000


def test_name_that_the_font_lacks_is_no_warning(tmp_path: Path) -> None:
    """A model's name may hold any script, or a control character: nothing is printed beside the command's own words."""
    assert save_comparison({**comparison(), "model": "\x1b[2J 模型"}, tmp_path)


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    """Another process, another day, another hash seed: the same SVG, which holds no date."""
    save_comparison(comparison(), tmp_path / "a")
    code = (
        "from pathlib import Path; from tests.helpers.comparisons import comparison;"
        "from promptkit.report.comparison_figure import save_comparison;"
        f"save_comparison(comparison(), Path({str(tmp_path / 'b')!r}))"
    )
    here = Path(__file__).parent
    environment = {"PYTHONPATH": str(here.parent), "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    for name in ("compare.svg", "compare.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "dc:date" not in (tmp_path / "a" / "compare.svg").read_text()


@pytest.mark.parametrize(
    "result",
    [comparison(), comparison(chance=None), templates("sentiment/plain", "sentiment/rating-form", "x/terse")],
    ids=["one template", "free text", "three templates"],
)
def test_words_do_not_overlap(result: dict[str, Any]) -> None:
    """No word lies on another or leaves the figure."""
    page, boxes = words(result)
    assert len(boxes) > 15
    for word, box in boxes:
        assert page.xmin <= box.xmin <= box.xmax <= page.xmax, word
        assert page.ymin <= box.ymin <= box.ymax <= page.ymax, word
    for (first, box), (second, other) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other), (first, second)


def test_every_condition_is_in_the_legend() -> None:
    """The legend names each condition once, with its runs, and chance last."""
    figure = draw_comparison(templates("a", "b"))
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries[0] == "zero-shot (1 run)"
    assert "few-shot k=4 (10 runs)" in entries
    assert entries[-1] == "chance"
    assert len(entries) == len(set(entries)) == 8


def test_every_run_is_a_dot() -> None:
    """Each draw and seed is on the figure at its own accuracy."""
    result = comparison()
    dots = [line for line in draw_comparison(result).axes[0].lines if line.get_marker() == "."]
    drawn = sorted(float(y) for line in dots for y in line.get_ydata())
    several = {"few-shot", "few-shot-cot", "lora"}
    expected = sorted(100 * cell["accuracy"] for cell in result["cells"] if cell["method"] in several)
    assert drawn == pytest.approx(expected)


def test_training_is_added_to_the_hollow_mark() -> None:
    """A trained condition stands at its cost per item, and hollow where its training is shared by all."""
    lines = draw_comparison(comparison()).axes[0].lines
    hollow = [float(line.get_xdata()[0]) for line in lines if line.get_fillstyle() == "none"]
    assert hollow == pytest.approx([6.2e8 + 4e9] * 2)  # 200 items share 200 x 4 GFLOP


def test_marks_of_equal_cost_stand_side_by_side() -> None:
    """Equal costs are moved apart, by little; costs that differ stay where they are."""
    places = _side_by_side([1e9, 1e9, 1e9, 5e10], decades=2.0)
    assert len(set(places)) == 4
    assert places[3] == pytest.approx(5e10)
    assert places[2] / places[0] <= 10 ** (2 * 2 * FARTHEST) * 1.000001
    assert places[0] * places[2] == pytest.approx(1e9**2)
    assert places[1] / places[0] == pytest.approx(10 ** (2 * CLOSEST))


def test_names_are_not_formulas(tmp_path: Path) -> None:
    """Dollar signs in names are letters, not the start of a formula."""
    result = templates("cost/$\\frac$", "cost/$")
    assert len(save_comparison(result | {"task": "$\\frac$"}, tmp_path)) == 2


def test_a_comparison_without_cost_is_drawn(tmp_path: Path) -> None:
    """One run without FLOPs, interval or training is still a figure."""
    result = comparison()
    method = result["methods"][0]
    method["cost"]["flops"] = 0
    del method["accuracy"]["ci95"]
    assert len(save_comparison(result | {"methods": [method], "cells": result["cells"][:1]}, tmp_path)) == 2


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The path is named in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/compare.svg: cannot be written \(.*\); make room there or give"):
        save_comparison(comparison(), tmp_path / "file")
