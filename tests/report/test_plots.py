"""The report's drawings: everything of the run is on them, at its place, and their words are told apart."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from promptkit.report.canvas import Plot
from promptkit.report.numbers import gather_items
from promptkit.report.plots import MOST_CONDITIONS, MOST_PANELS, _stack, make_plots
from promptkit.report.rendering import render_plot
from promptkit.report.run_source import RunSource
from tests.helpers.study_runs import RECORDS, write_study

EVEN = {
    "zero-shot": {"items": None, "items_prefix_shared": None},
    "few-shot": {"items": 120, "items_prefix_shared": 45_000},
}


def plots_of(source: RunSource) -> dict[str, Plot]:
    """Return the plots of a run by their names."""
    return {plot.name: plot for plot in make_plots(source, gather_items(source))}


def test_a_run_has_the_drawings_that_it_has_data_for(tmp_path: Path) -> None:
    """No line over k for one k, no break-even without training, no orders where there is one of each draw."""
    assert set(plots_of(write_study(tmp_path / "a"))) == {"runs", "shots", "orders", "variance", "cost", "records"}
    one = write_study(tmp_path / "b", shots=(2,), orders=(("0",), ("0",)), break_even=EVEN)
    assert set(plots_of(one)) == {"runs", "variance", "cost", "break-even", "records"}


def test_every_run_is_a_dot(tmp_path: Path) -> None:
    """Each cell is on its condition's strip at its own accuracy, equal ones side by side."""
    source = write_study(tmp_path / "run")
    axes = plots_of(source)["runs"].draw().axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "."]
    for row, line in enumerate(dots):
        drawn = sorted(line.get_xdata())
        k = source.result["methods"][row]["k"]
        assert drawn == pytest.approx(
            sorted(100 * cell["accuracy"] for cell in source.result["cells"] if cell["k"] == k)
        )
        assert all(abs(place - row) <= 0.35 for place in line.get_ydata())
        assert len(set(zip(line.get_xdata(), line.get_ydata(), strict=True))) == len(drawn)
        bar = next(each for each in axes.lines if each.get_linewidth() == 2.2 and row - 0.5 < each.get_ydata()[0] < row)
        assert list(axes.lines).index(bar) < list(axes.lines).index(line)  # dots lie on it
    assert len(dots) == 2


def test_equal_values_are_stacked_evenly() -> None:
    """One stays in the middle, several spread around it, many closer together."""
    assert _stack([1.0]) == [0.0]
    assert _stack([1.0, 1.0, 2.0]) == pytest.approx([-0.055, 0.055, 0.0])
    assert max(_stack([1.0] * 50)) == pytest.approx(0.34)


def test_many_conditions_show_the_best_and_the_worst(tmp_path: Path) -> None:
    """Beyond sixty, those in between are left to the table, which the drawing says."""
    source = write_study(tmp_path / "run", templates=[f"films/{number}" for number in range(40)])
    plot = plots_of(source)["runs"]
    labels = [label.get_text() for label in plot.draw().axes[0].get_yticklabels()]
    assert len(labels) == MOST_CONDITIONS
    means = sorted(method["accuracy"]["mean"] for method in source.result["methods"])
    shown = sorted(line.get_xdata()[0] / 100 for line in plot.draw().axes[0].lines if line.get_linewidth() == 2.2)
    assert shown == pytest.approx(means[:30] + means[-30:])
    assert "20 between them are in the table" in plot.reading


def test_orders_that_all_draws_share_are_columns(tmp_path: Path) -> None:
    """A field is its draw's accuracy in that order; the columns are the orders by number."""
    source = write_study(tmp_path / "run", shots=(4,), orders=(("10", "9"), ("9", "10")))
    axes = plots_of(source)["orders"].draw().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["9", "10"]
    found = {(cell["factors"]["draw"], cell["factors"]["order"]): cell["accuracy"] for cell in source.result["cells"]}
    wanted = [100 * found[draw, order] for draw in "01" for order in ("9", "10")]
    assert axes.collections[0].get_array().ravel().tolist() == pytest.approx(wanted)
    assert [text.get_text() for text in axes.texts] == [f"{value:.1f}" for value in wanted]


def test_orders_of_their_own_are_sorted_and_numbered(tmp_path: Path) -> None:
    """Where draws have different orders, each row is sorted by accuracy and names its orders."""
    source = write_study(tmp_path / "run", shots=(4,), orders=(("3", "7", "1"), ("5", "3")))
    axes = plots_of(source)["orders"].draw().axes[0]
    first = axes.collections[0].get_array()[0].tolist()
    assert first == sorted(first, reverse=True)
    assert {text.get_text().split("#")[1] for text in axes.texts[:3]} == {"1", "3", "7"}
    assert len(axes.texts) == 5


def test_only_the_widest_of_many_heat_maps_are_shown(tmp_path: Path) -> None:
    """Six panels at most, which the drawing says."""
    plot = plots_of(write_study(tmp_path / "run", templates=[f"films/{number}" for number in range(5)]))["orders"]
    assert sum(bool(axes.get_title(loc="left")) for axes in plot.draw().axes) == MOST_PANELS
    assert "Of 10 conditions the 6 with the widest spread" in plot.reading


def test_many_lines_over_k_have_a_panel_each(tmp_path: Path) -> None:
    """Up to six lines share a panel; of more, six are shown, each in its own."""
    few = plots_of(write_study(tmp_path / "a", templates=["films/a", "films/b"]))["shots"].draw()
    assert len(few.axes) == 1
    assert [text.get_text() for text in few.legends[0].get_texts()] == ["few-shot · films/a", "few-shot · films/b"]
    plot = plots_of(write_study(tmp_path / "b", templates=[f"films/{number}" for number in range(8)]))["shots"]
    assert len(plot.draw().axes) == 6
    assert "first 6 of 8 lines" in plot.reading


def test_break_even_marks_stand_at_their_counts(tmp_path: Path) -> None:
    """Full where demonstrations are recomputed, hollow where shared; never is a place of its own."""
    plot = plots_of(write_study(tmp_path / "run", break_even=EVEN))["break-even"]
    axes = plot.draw().axes[0]
    marks = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    never = marks[0]
    assert marks == [never, never, 120, 45_000]
    assert never > 45_000
    assert (
        dict(zip(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()], strict=True))[never]
        == "never"
    )
    assert "few-shot: from 120 test records on where demonstrations are computed for every prompt" in plot.description


def test_bars_of_records_add_up(tmp_path: Path) -> None:
    """Every test record is in one bar."""
    source = write_study(tmp_path / "run")
    plot = plots_of(source)["records"]
    axes = plot.draw().axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == RECORDS
    assert axes.patches[0].get_height() == sum(item.right == 0 for item in gather_items(source))


@pytest.mark.parametrize("name", ["runs", "shots", "orders", "variance", "cost", "break-even", "records"])
def test_words_do_not_overlap(tmp_path: Path, name: str) -> None:
    """No word of a drawing lies on another or leaves the page, with long names too."""
    templates = ["films/plain", "films/a-name-that-is-much-longer-than-there-is-room-for-in-a-drawing"]
    orders = [[str(order) for order in range(4)], [str(order) for order in range(2, 6)]]
    figure = plots_of(write_study(tmp_path / "run", templates=templates, orders=orders, break_even=EVEN))[name].draw()
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text().strip()]
    inside = figure.bbox
    shown = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()]
    boxes = [(word, box) for word, box in shown if box.width and inside.overlaps(box)]
    assert len(boxes) > 5
    for word, box in boxes:
        is_tick = word.isdigit()  # there are ticks beyond the axes that are not drawn
        assert is_tick or inside.xmin - 1 <= box.xmin <= box.xmax <= inside.xmax + 1, word
    for (first, box), (second, other) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other) or box.bounds == other.bounds, (first, second)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """Drawn twice, the files are equal, and hold no date; dollar signs in names are dollar signs."""
    source = write_study(tmp_path / "run", templates=["a/$x$", "a/$y_{$ \x00日本"], shots=(2,))
    plot = plots_of(source)["runs"]
    first, second = render_plot(plot), render_plot(plot)
    assert first == second
    assert set(first.files) == {"runs.svg", "runs.png", "runs.pdf"}
    assert b"dc:date" not in first.files["runs.svg"]
    assert b"CreationDate" not in first.files["runs.pdf"]
    assert "a/$x$" in first.inline
    assert "a/$y_{$ \ufffd日本" in first.inline
    assert not re.search(r'\sid="(?!runs-)', first.inline)
