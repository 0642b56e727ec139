"""Curves and ledger in the terminal and as a drawing: their width, their words, every point in its place."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from promptkit.report.curve_figure import draw_curves, save_curves
from promptkit.report.curve_table import describe_crossings
from tests.helpers.comparisons import comparison, curves, ledger
from tests.report.test_comparison_table import printed, row, sentence


def full(**changes: Any) -> dict[str, Any]:
    """Return a comparison with curves and a priced ledger."""
    return comparison(curves=curves(), ledger=ledger(prices=True), **changes)


def test_it_fits_80_columns() -> None:
    """Nothing is cut at 80 columns, with the longest names that a default comparison has."""
    text = printed(full())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_long_names_of_templates_fit_80_columns() -> None:
    """The ledger of a free-text task, with what is written and long names of templates, is not cut either."""
    result = full()
    for rows in (result["methods"], result["ledger"]["conditions"]):
        for each in rows:
            each["template"] = f"word-problems/{'cot' if 'cot' in each['method'] else 'plain'}"
    text = printed(result)
    assert "writ-" in text
    assert "…" not in text


def test_every_point_has_a_line() -> None:
    """A point stands with its rows, runs, accuracy, failed runs, and the cost of 1,000 items, shared and recomputed."""
    text = printed(full())
    assert row(text, "few-shot k=16 bm25")[:2] == [
        ["32", "1", "70.0", "64.0–75.0", "0", "132", "520"],
        ["128", "1", "72.0", "66.0–77.0", "0", "228", "1,480"],
    ]
    assert ["32", "3", "50.0", "44.0–55.0", "1", "132", "520"] in row(text, "lora ")


def retrieving() -> dict[str, Any]:
    """Return the comparison with demonstrations that were retrieved from 128 and from 2,048 rows."""
    result = full()
    for rows in (result["methods"], result["ledger"]["conditions"]):
        shown = next(row for row in rows if row["k"] == 4)
        place = rows.index(shown) + 1
        rows[place:place] = [{**shown, "retrieval": "bm25", "pool_rows": size, "runs": 1} for size in (128, 2048)]
    return result


def test_retrieved_demonstrations_stand_in_every_table() -> None:
    """Accuracy, cost, tokens and prices have a line for the largest set, and the number of its rows is said."""
    text = printed(retrieving())
    assert len(row(text, "few-shot k=4 bm25 ")) == 4
    assert row(text, "few-shot k=4 bm25 ")[2][:4] == ["14", "120", "32", "2"]
    assert "bm25 retrieves from 2,048 rows here; smaller sets stand below." in sentence(text)
    assert "bm25 of 128" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "retrieves" not in printed(full())


def test_who_is_ahead_stands_at_every_size() -> None:
    """A contest's line has the prompt, the difference, its interval, the adjusted p, and who is ahead."""
    text = printed(full())
    assert row(text, "32 rows")[0] == ["few-shot", "k=16", "-26.0", "-32.0", "to", "-20.0", "<", "0.001", "prompt"]
    assert row(text, "512 rows")[0] == ["few-shot", "k=16", "bm25", "+0.0", "-6.0", "to", "+6.0", "0.210", "open"]
    assert row(text, "2,048 rows")[0][-1] == "LoRA"


def test_the_crossing_is_said_with_its_uncertainty() -> None:
    """The sentence names both sizes, what is open between them, and the interval of the place."""
    said = sentence(printed(full()))
    assert (
        "LoRA passes the best prompt between 128 and 2,048 labelled rows. At 512 rows it is too close to call." in said
    )
    assert (
        "By the means LoRA leads from about 512 rows on (95 % interval of where that begins: 220 to beyond 2,048"
        in said
    )
    assert "which favours prompting. The intervals at these sizes resample records, draws and seeds;" in said


def test_several_templates_are_named() -> None:
    """With two templates every crossing says whose it is."""
    both = [*curves()["crossings"], *curves("sentiment/question")["crossings"]]
    said = describe_crossings(both)
    assert said[0].startswith("LoRA passes the best prompt (sentiment/plain) between")
    assert said[1].startswith("LoRA passes the best prompt (sentiment/question) between")


def test_the_ledger_has_tokens_trials_and_prices() -> None:
    """Tokens stand by kind, training's in thousands; trials and money are said, and `never` where nothing pays."""
    text = printed(full())
    tokens, prices = row(text, "lora 1,000 rows ")[-2:]
    assert tokens == ["14", "0", "32", "2", "0", "230k", "5k", "800"]
    assert prices == ["0.012", "0.40", "1.25", "0.25", "12.50"]
    said = sentence(text)
    assert "Price in EUR: 1,000 test items, and training once" in said
    assert "Tried: 32 prompts, 30.0 TFLOP and 6.7 min. Tried: 6 adapters, 30.0 TFLOP and 5.0 min" in said
    assert (
        "LoRA costs less than few-shot k=4 from so many items on: 1,200 (own hardware, as run here), 345 (by tokens), "
        "never (by tokens, prefix cached)." in said
    )
    assert "Training is one adapter on 1,000 rows. Shared: demonstrations are computed once." in said


def test_without_prices_there_is_no_money() -> None:
    """Tokens and trials stand without prices; without a ledger or curves nothing is made up."""
    text = printed(comparison(ledger=ledger()))
    assert "Ledger: tokens" in text
    assert "Price" not in text
    plain = printed(comparison())
    assert "Ledger" not in plain
    assert "labelled rows" not in plain


def test_trials_stand_beside_the_break_even_counts() -> None:
    """Where the counts with all trials paid are known they have columns of their own."""
    result = comparison()
    for each in result["break_even"].values():
        each |= {"items_with_trials": 3456, "items_prefix_shared_with_trials": None}
    assert row(printed(result), "few-shot k=4 ")[2] == ["1,234", "56,789", "3,456", "never"]


def test_every_point_is_drawn() -> None:
    """Means stand at their rows on both panels; zero-shot is a line across; a failed run is a cross."""
    accuracy, cost = draw_curves(full()).axes
    drawn = {line.get_label(): line for line in accuracy.lines}
    for line in curves()["lines"][1:]:
        mark = drawn[line["name"]]
        assert list(mark.get_xdata()) == [point["rows"] for point in line["points"]]
        assert list(mark.get_ydata()) == pytest.approx([100 * point["accuracy"]["mean"] for point in line["points"]])
    crosses = [line for line in accuracy.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], round(line.get_ydata()[0])) for line in crosses] == [(32, 48), (32, 50)]
    recomputed = {line.get_label(): line for line in cost.lines}["few-shot, recomputed"]
    assert list(recomputed.get_ydata()) == [2e11 + 4e10, 2e11 + 16e10]


def test_lines_that_reason_first_are_drawn_too() -> None:
    """Chain of thought has a template of its own, in which LoRA was not trained: it stands beside the others."""
    result = full()
    shared = next(line for line in result["curves"]["lines"] if line["kind"] == "shared")
    result["curves"]["lines"].append({**shared, "name": "few-shot-cot", "method": "few-shot-cot", "template": "a/cot"})
    accuracy, cost = draw_curves(result).axes
    assert "few-shot-cot" in {line.get_label() for line in accuracy.lines}
    assert "few-shot-cot, recomputed" in {line.get_label() for line in cost.lines}


def test_words_do_not_overlap() -> None:
    """No word lies on another or leaves the figure, for one template and for two."""
    two = full()
    two["curves"]["lines"] += curves("sentiment/question")["lines"]
    for result in (full(), two):
        figure = draw_curves(result)
        FigureCanvasAgg(figure).draw()
        shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        boxes = [(text.get_text(), text.get_window_extent()) for text in shown if _is_drawn(figure, text)]
        assert len(boxes) > 20
        for word, box in boxes:
            assert figure.bbox.xmin <= box.xmin <= box.xmax <= figure.bbox.xmax, word
            assert figure.bbox.ymin <= box.ymin <= box.ymax <= figure.bbox.ymax, word
        for (first, box), (second, other) in itertools.combinations(boxes, 2):
            assert not box.overlaps(other), (first, second)


def _is_drawn(figure: Any, text: Text) -> bool:
    """Say whether a text is no tick beyond its axis, which matplotlib keeps and does not draw."""
    from matplotlib.axis import Tick

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.findobj(Tick):
                if text is tick.label1:
                    return low <= tick.get_loc() <= high and bool(tick.label1.get_visible())
    return True


def test_files_are_written_where_there_are_curves(tmp_path: Path) -> None:
    """SVG and PNG, the same bytes each time; none for a comparison without sizes."""
    for folder in ("a", "b"):
        assert [path.name for path in save_curves(full(), tmp_path / folder)] == ["curves.svg", "curves.png"]
    assert (tmp_path / "a/curves.svg").read_bytes() == (tmp_path / "b/curves.svg").read_bytes()
    assert save_curves(comparison(), tmp_path / "c") == []
