"""Studies: which cells a grid has, that stopped and widened ones compute what is missing, and what they tell."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from promptkit.cli import cli
from promptkit.data.record import Record
from promptkit.demonstrations.orders import permute
from promptkit.errors import PromptkitError, RunError, SelectionError, TemplateError
from promptkit.experiments.grid import StudySettings, choose_orders, find_presets, load_settings
from promptkit.experiments.study import study
from promptkit.models import Model
from promptkit.scoring import score
from promptkit.training import train
from tests.conftest import Project, own_scorer
from tests.experiments.test_compare import bytes_of, small

__all__ = ["small"]  # a fixture

GRID: dict[str, Any] = {"limit": 4, "shots": (2,), "draws": 2, "orders": ("all",), "data": "data"}


def test_cells_are_every_combination(small: Model) -> None:
    """Draws, their orders and label words are crossed; each cell says where on the axes it is."""
    result = json.loads(json.dumps(study("films", model=small.name, labels=("own", "zip,nop"), **GRID)))
    places = [cell["factors"] for cell in result["cells"]]
    assert len(places) == len({json.dumps(place) for place in places}) == 2 * 2 * 2
    assert result["axes"]["draw"] == ["0", "1"]
    assert result["axes"]["labels"] == ["own", "zip,nop"]
    assert [method["runs"] for method in result["methods"]] == [4, 4]
    assert result.keys() >= {"task", "model", "run", "labels", "chance", "cells", "methods", "break_even"}
    assert {part["factor"] for part in result["factors"]} >= {"draw", "order", "labels", "items", "residual"}
    assert sum(part["share"] for part in result["factors"]) == pytest.approx(1)
    assert result["verdict"]


def test_every_training_of_a_study_is_a_cell(small: Model) -> None:
    """Sizes and seeds are crossed, and each is trained and scored by itself."""
    asked = {**GRID, "methods": ("zero-shot", "lora"), "train_sizes": (2, 4), "seeds": 2, "epochs": 1}
    trained = []

    def noting(model: Model, pairs: Any, **options: Any) -> Any:
        trained.append((len(pairs), options["seed"]))
        return train(model, pairs, **{**options, "epochs": 1})

    result = study("films", model=small.name, trainer=noting, **asked)
    assert trained == [(2, 0), (2, 1), (4, 0), (4, 1)]
    assert [(method["method"], method["runs"]) for method in result["methods"]] == [
        ("zero-shot", 1),
        ("lora", 2),
        ("lora", 2),
    ]
    assert result["break_even"]


def test_conditions_of_one_method_have_each_their_break_even(small: Model) -> None:
    """Where selection is all that differs, it names the counts."""
    axes = {"methods": ("few-shot", "lora"), "selections": ("random", "balanced", "first", "bm25"), "seeds": 1}
    result = study("films", model=small.name, **{**GRID, "draws": 1, "orders": ("given",), "epochs": 1, **axes})
    further = [f"few-shot, selection {name}" for name in axes["selections"][1:]]
    assert list(result["break_even"]) == ["few-shot", *further]


def test_a_value_given_twice_is_one(small: Model) -> None:
    """Repeated values of an axis make no further cells."""
    axes = {"methods": ("few-shot", "few-shot"), "selections": ("random", "random"), "demo_labels": ("gold", "gold")}
    more = {"shots": (2, 2), "labels": ("own", "own"), "models": (small.name, small.name)}
    result = study("films", **{**GRID, "draws": 1, "orders": ("given", "given"), **axes, **more})
    assert [method["runs"] for method in result["methods"]] == [1]
    assert len(result["cells"]) == 1


def test_a_cell_that_was_cut_is_named(small: Model) -> None:
    """A cell with fewer predictions than there are records is damaged, which one line says."""
    result = study("films", model=small.name, **GRID)
    path = next(Path(result["run"]).glob("cells/*.json"))
    cell = json.loads(path.read_text())
    cell["result"]["predictions"].pop()
    path.write_text(json.dumps(cell))
    with pytest.raises(
        RunError, match=rf"{path.name}: was damaged or edited from outside .*; delete it and start again"
    ):
        study("films", model=small.name, **GRID)


def test_cells_that_share_work_are_scored_as_if_alone(small: Model) -> None:
    """The scores of a cell are those of its prompts alone, whatever it was run with."""
    seen: list[Any] = []

    def noting(model: Model, prompts: Any, **options: Any) -> Any:
        table = score(model, prompts, **options)
        seen.append((prompts, table))
        return table

    study("films", model=small.name, scorer=noting, **GRID)
    assert [len(prompts) for prompts, _ in seen] == [8, 8]  # two orders of four queries, for each of two choices
    for prompts, table in seen:
        for half in (slice(0, 4), slice(4, 8)):
            alone = score(small, prompts[half]).logprobs
            for found, wanted in zip(table.logprobs[half], alone, strict=True):
                assert found == pytest.approx(wanted, abs=1e-4)


def test_stopped_study_goes_on_to_the_same_bytes(small: Model) -> None:
    """A study that is stopped and started again has the cells of one that was not."""
    study("films", model=small.name, out="whole", **GRID)
    calls = 0

    @own_scorer
    def stopping(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return score(*args, **options)

    with pytest.raises(KeyboardInterrupt):
        study("films", model=small.name, out="stopped", scorer=stopping, **GRID)
    assert 1 < len(bytes_of("stopped")) < len(bytes_of("whole"))
    study("films", model=small.name, out="stopped", **GRID)
    assert bytes_of("stopped") == bytes_of("whole")


def test_a_further_value_computes_only_what_is_new(small: Model) -> None:
    """A third draw in the same folder leaves the cells of the first two as they are, and keeps their results."""
    first = study("films", model=small.name, out="run", **GRID)
    before, calls = bytes_of(first["run"]), 0

    @own_scorer
    def counting(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return score(*args, **options)

    results = {name: Path("run", name).read_bytes() for name in ("run.json", "study.json", "predictions.parquet")}
    study("films", model=small.name, out="run", scorer=counting, **{**GRID, "draws": 3})
    assert calls == 1
    assert {**before, "run.json": b""}.items() <= {**bytes_of("run"), "run.json": b""}.items()
    (earlier,) = Path("run", "earlier").iterdir()
    assert {path.name: path.read_bytes() for path in earlier.iterdir()} == results


def test_predictions_are_there_to_compute_with(small: Model) -> None:
    """The Parquet file has every answer of every cell, and gives the accuracies of the result."""
    result = study("films", model=small.name, **GRID)
    rows = pyarrow.parquet.read_table(Path(result["run"]) / "predictions.parquet").to_pylist()
    assert len(rows) == 4 * 4
    for cell in result["cells"]:
        own = [row for row in rows if all(row[axis] == value for axis, value in cell["factors"].items())]
        assert sum(row["right"] for row in own) / len(own) == cell["accuracy"]
        assert all(len(row["logprobs"]) == 2 for row in own)


def make_records(count: int) -> tuple[Record, ...]:
    """Return records that differ."""
    return tuple(Record(f"r{number}", {"text": f"text {number}"}, number % 2) for number in range(count))


@pytest.mark.parametrize("asked", [("all",), ("6",), ("99",)])
def test_all_orders_are_every_permutation(asked: tuple[str, ...]) -> None:
    """Of three demonstrations there are six sequences, each once."""
    chosen = make_records(3)
    found = {tuple(record.id for record in permute(chosen, int(order))) for order in choose_orders(asked, chosen, 0)}
    assert found == set(permutations(record.id for record in chosen))


def test_some_orders_are_drawn_by_seed() -> None:
    """They depend on the seed, and more of them go on from fewer."""
    chosen = make_records(4)
    five = choose_orders(("5",), chosen, 1)
    assert len(set(five)) == 5
    assert five == choose_orders(("9",), chosen, 1)[:5]
    assert five != choose_orders(("5",), chosen, 2)
    assert choose_orders(("given", "reversed"), chosen, 0) == ["given", "reversed"]


def test_presets_can_be_read() -> None:
    """Every shipped preset names its paper and holds settings; flags replace them."""
    assert "lu2022" in find_presets()
    for name in find_presets():
        settings = load_settings(name)
        assert settings.reference
        assert settings.about
    assert load_settings("lu2022", draws=2).draws == 2
    assert load_settings("lu2022").orders == ("all", "globale:4", "locale:4")


def test_formats_and_labels_shown_are_axes(small: Model) -> None:
    """Each format and each kind of label gives prompts of its own; queries keep their text and choices."""
    texts: dict[str, list[Any]] = {}

    def noting(model: Model, prompts: Any, **options: Any) -> Any:
        texts[str(len(texts))] = [(prompt.text, prompt.label) for prompt in prompts]
        return score(model, prompts, **options)

    grid = {
        **GRID,
        "draws": 1,
        "orders": ("given",),
        "demo_labels": ("gold", "flipped-100"),
        "formats": ("own", "case=upper"),
    }
    result = study("films", model=small.name, scorer=noting, **grid)
    assert [(c["factors"]["format"], c["factors"]["demo-labels"]) for c in result["cells"]] == [
        ("own", "gold"),
        ("own", "flipped-100"),
        ("case=upper", "gold"),
        ("case=upper", "flipped-100"),
    ]
    gold, flipped, upper, _ = texts.values()
    for (text, label), (other, same), (loud, _) in zip(gold, flipped, upper, strict=True):
        assert same == label
        assert text.rsplit("\n\n", 1)[1] == other.rsplit("\n\n", 1)[1]
        swapped = text.replace(": positive", ": x").replace(": negative", ": positive").replace(": x", ": negative")
        assert other == swapped
        assert "TEXT: " in loud
        assert "Text: " not in loud


def test_a_dry_run_counts_and_computes_nothing(small: Model) -> None:
    """It says how many cells and tokens there will be, and leaves no cell behind."""
    found = study("films", model=small.name, dry_run=True, **GRID)
    assert found["cells"] == 4
    assert found["tokens_computed"] > 0
    assert not [*Path(found["run"]).glob("cells/*.json")]
    result = study("films", model=small.name, **GRID)
    computed = sum(cell["cost"]["tokens_computed"] for cell in result["cells"])
    assert found["tokens_computed"] == pytest.approx(computed, rel=0.5)
    assert study("films", model=small.name, dry_run=True, **GRID)["tokens_computed"] == 0


def test_a_dry_run_keeps_to_its_budget(small: Model) -> None:
    """Calls, tokens and minutes are those that a budget pays for, of all that the grid would take."""
    grid: dict[str, Any] = {"model": small.name, "data": "data", "shots": (1,), "draws": 3, "dry_run": True}
    whole, part = study("films", **grid), study("films", **grid, budget=9)
    assert (part["calls"], part["of_calls"]) == (9, 6 * whole["cells"])
    assert part["tokens_computed"] == pytest.approx(whole["tokens_computed"] * 9 / part["of_calls"], abs=1)
    assert study("films", **grid, budget="10h")["calls"] == part["of_calls"]


def test_a_dry_run_is_words_or_with_json_one_object(small: Model) -> None:
    """The verb says in words what `--json` gives as numbers."""
    words = ["study", "films", "--model", small.name, "--data", "data", "--limit", "4", "-k", "2", "--dry-run"]
    told, found = (CliRunner().invoke(cli, [*words, *more]).stdout for more in ([], ["--json"]))
    assert json.loads(found).keys() == {"task", "cells", "trainings", "tokens_computed", "minutes", "run"}
    assert told.startswith("films · ")
    assert "{" not in told


def test_a_file_of_settings_is_a_preset(project: Project, small: Model) -> None:
    """A TOML file says what to vary; a word it does not know is an error that names the nearest."""
    project.write("mine.toml", 'shots = [2]\ndraws = 1\norders = "given"\nlimit = 4\n')
    assert len(study("films", model=small.name, preset="mine.toml", data="data")["cells"]) == 1
    project.write("mine.toml", "shot = [2]\n")
    with pytest.raises(PromptkitError, match=r"mine.toml: unknown setting 'shot'.*Did you mean 'shots'\?"):
        load_settings("mine.toml")
    project.write("mine.toml", "shots = [2\n")
    with pytest.raises(PromptkitError, match=r"mine.toml: is no TOML"):
        load_settings("mine.toml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('chat = "false"', "chat is 'false'; it should be a valid boolean"),
        ("draws = true", "draws is True; it should be a valid integer"),
        ("rank = 1.5", "rank is 1.5; it should be a valid integer"),
        ("shots = [1.5]", r"shots is \[1.5\]; it should be a valid integer"),
        ('shots = "a"', "shots is 'a'; it should be a valid integer"),
        ("dtype = 3", "dtype is 3; it should be a valid string"),
        ('learning_rate = "a"', "learning_rate is 'a'; it should be a valid number"),
        ("draws = -1", "draws is -1; it must be 1 or more"),
        ("seed = -1", "seed is -1; it must be 0 or more"),
    ],
)
def test_a_value_that_its_setting_does_not_take_is_named_with_the_file(
    project: Project, line: str, message: str
) -> None:
    """A preset is as strict as the command line: a text is no switch, and a fraction no number of draws."""
    project.write("mine.toml", f"{line}\n")
    with pytest.raises(PromptkitError, match=rf"^mine.toml: {message}"):
        load_settings("mine.toml")


def test_values_of_a_preset_may_stand_alone(project: Project) -> None:
    """One value where several may stand, a whole number where a fraction may, templates by family."""
    lines = ["shots = 2", "learning_rate = 1", 'orders = [4, "all"]', "budget = 9", "[templates]", 'films = ["plain"]']
    project.write("mine.toml", "\n".join(lines))
    found = load_settings("mine.toml")
    assert (found.shots, found.learning_rate, found.orders) == ((2,), 1, ("4", "all"))
    assert (found.budget, found.templates) == (9, {"films": ["plain"]})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"labels": ("zip",)}, TemplateError, "needs 2 different words"),
        ({"orders": ("backwards",)}, SelectionError, "unknown order 'backwards'"),
        ({"methods": ("many-shot",)}, PromptkitError, "unknown method 'many-shot'"),
        ({"methods": ("lora",), "templates": ("cot",)}, TemplateError, "no template matches"),
        ({"methods": ("few-shot-cot",)}, TemplateError, "task 'films' has no field `rationale`"),
        ({"draws": 0}, PromptkitError, "draws is 0"),
        ({"orders": ("0",)}, PromptkitError, "orders are 0; a number of them must be 1 or more"),
        ({"formats": ("own", "0")}, PromptkitError, "formats are own, 0; a number of them must be 1 or more"),
        ({"shots": (0,)}, SelectionError, "each must be 1 or more"),
        ({"train_sizes": (16, 0)}, PromptkitError, "train sizes are .16, 0.; each must be 2 or more"),
        ({"preset": "lu2023"}, PromptkitError, r"unknown preset 'lu2023'.*Did you mean 'lu2022'\?"),
    ],
)
def test_bad_settings_are_refused(small: Model, settings: dict[str, Any], error: type, message: str) -> None:
    """What does not fit is said in a line before anything is computed."""
    with pytest.raises(error, match=message):
        study("films", model=small.name, **{**GRID, **settings})


def test_a_method_without_a_template_is_refused(small: Model) -> None:
    """A task with rationales, and a template that has no room for them."""
    with pytest.raises(TemplateError, match="no template here goes with few-shot-cot"):
        study("word-problems", model=small.name, methods=("few-shot-cot",), templates=("plain",), limit=4)


def test_settings_have_the_documented_defaults() -> None:
    """Four demonstrations, five choices of them, four orders of each."""
    settings = StudySettings()
    assert (settings.shots, settings.draws, settings.orders) == ((4,), 5, ("4",))


def test_studies_of_the_same_records_leave_one_another_whole(small: Model) -> None:
    """Everything that is run names the default folder; the same again finds its own."""
    asked: dict[str, Any] = {"model": small.name, "data": "data", "limit": 4, "draws": 1, "orders": ("1",)}
    grids: list[dict[str, Any]] = [{"shots": (1,)}, {"shots": (2,)}, {"shots": (1,), "calibrate": ("batch",)}]
    grids += [{"shots": (1,), "about": "words"}, {"shots": (1,), "epochs": 2}, {"shots": (1,), "budget": 4}]
    grids[-1]["draws"] = 2
    runs = [study("films", **{**asked, **grid})["run"] for grid in grids]
    assert len(set(runs)) == len(grids)
    kept = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    for run, grid in zip(runs, grids, strict=True):
        assert study("films", **{**asked, **grid})["run"] == run
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == kept


@pytest.mark.parametrize("change", [{"shots": (2,)}, {"draws": 1}, {"calibrate": ("batch",)}, {"orders": ("given",)}])
def test_another_study_in_the_same_folder_is_refused(small: Model, change: dict[str, Any]) -> None:
    """What does not hold all of the earlier grid replaces nothing of it."""
    asked: dict[str, Any] = {"model": small.name, "data": "data", "limit": 4, "shots": (1,), "draws": 2, "out": "run"}
    study("films", **asked)
    kept = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="this run was started with"):
        study("films", **{**asked, **change})
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == kept


@pytest.mark.parametrize(
    "arguments",
    [
        ("study", "--orders", "x"),
        ("study", "--selection", "x"),
        ("study", "--chat"),
        ("study", "-k", "99"),
        ("study", "--methods", "lora", "--train-sizes", "99"),
        ("study", "--dry-run"),
        ("compare", "--order", "x"),
        ("compare", "--chat"),
        ("compare", "--methods", "few-shot", "-k", "99"),
        ("compare", "--methods", "lora", "--learning-rate", "-1"),
        ("compare", "--prices", "none.toml"),
        ("score", "--chat"),
        ("score", "--calibrate", "x"),
    ],
)
def test_a_refused_option_leaves_no_folder(small: Model, arguments: tuple[str, ...]) -> None:
    """So that the corrected command may have the same --out; a dry run leaves none either."""
    verb, *options = arguments
    given = [verb, "films", "--model", small.name, "--data", "data", "--limit", "2", "--out", "out/run", *options]
    Path(small.name, "chat_template.jinja").unlink()
    before = sorted(Path().rglob("*"))
    done = CliRunner().invoke(cli, given)
    assert (done.exit_code == 0) == ("--dry-run" in options), done.output
    assert sorted(Path().rglob("*")) == before
