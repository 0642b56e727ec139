"""The comparison: which cells are run, what is printed, and that a stopped run goes on to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptkit.data.records import load_records
from promptkit.data.tasks import load_task
from promptkit.demonstrations import Draw
from promptkit.errors import DataError, PromptkitError, RunError, SelectionError, TemplateError, WindowError
from promptkit.experiments.compare import compare
from promptkit.experiments.evaluate import fit_prompts
from promptkit.experiments.plan import CompareSettings, make_draws, passes_over
from promptkit.models import Model
from promptkit.scoring import prompt_lengths, score
from promptkit.scoring.condition import Condition
from promptkit.templating.template import load_template
from promptkit.training import train
from tests.conftest import TEMPLATE, Project, own_scorer, own_trainer
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

SMALL: dict[str, Any] = {"limit": 4, "shots": (2,), "draws": 3, "seeds": 2, "epochs": 1, "rank": 2, "data": "data"}
TOP = {"task", "model", "run", "labels", "chance", "cells", "methods", "break_even", "records", "paired", "notes"}
CELL = {"method", "template", "k", "draw", "n", "accuracy", "ci95", "macro_f1", "cost"}
COST = {"tokens_prompted", "tokens_computed", "flops", "seconds", "peak_memory_bytes", "tokens_unique"}


@pytest.fixture
def small(project: Project) -> Model:
    """A random model with a window of 256 tokens, saved as a folder of the project."""
    return saved(random_model(window=256), project.root / "small")


def bytes_of(folder: str | Path) -> dict[str, bytes]:
    """Return what a run computed: its settings, cells and adapters' weights."""
    paths = [*Path(folder).glob("cells/*.json"), *Path(folder).glob("adapters/*/adapter_model.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*paths, Path(folder) / "run.json"]}


def test_result_has_every_documented_key(small: Model) -> None:
    """The object is JSON, and its cells, methods and costs have the keys that users rely on."""
    result = json.loads(json.dumps(compare("films", model=small.name, **SMALL)))
    assert result.keys() >= TOP
    assert {cell["method"] for cell in result["cells"]} == {"zero-shot", "few-shot", "lora"}
    for cell in result["cells"]:
        assert cell.keys() >= CELL
        assert cell["cost"].keys() == COST
        assert cell["ci95"][0] <= cell["accuracy"] <= cell["ci95"][1]
    for method in result["methods"]:
        assert method["accuracy"].keys() >= {"mean", "std", "min", "max", "ci95"}
    assert result["break_even"]["few-shot"].keys() >= {"items", "items_prefix_shared"}


def test_lora_on_k_rows_stands_beside_lora_on_all(small: Model) -> None:
    """Equal data too: adapters are trained on just the k demonstrations and on the whole pool."""
    methods = compare("films", model=small.name, **SMALL)["methods"]
    assert [(m["method"], m["k"], m["train_rows"], m["runs"]) for m in methods] == [
        ("zero-shot", 0, None, 1),
        ("few-shot", 2, None, 3),
        ("lora", 0, 2, 2),
        ("lora", 0, 6, 2),
    ]


def test_training_sizes_are_nested_and_replace_other_sets(small: Model) -> None:
    """LoRA is trained on the first so many records of the pool, small sets often enough, without a validation set."""
    seen = []

    def noting(model: Model, pairs: Any, **settings: Any) -> Any:
        seen.append(([pair.id for pair in pairs], settings["epochs"], settings["validation"]))
        return train(model, pairs, **{**settings, "epochs": 1})

    sizes = {**SMALL, "methods": ("lora",), "seeds": 1, "train_sizes": (4, 2), "train_limit": 3}
    methods = compare("films", model=small.name, trainer=noting, **sizes)["methods"]
    assert [method["train_rows"] for method in methods] == [2, 4]
    (few, few_epochs, _), (most, epochs, _) = seen
    assert few == most[:2]
    assert (few_epochs, epochs) == (30, 30)
    assert not any(validation for *_, validation in seen)
    with pytest.raises(DataError, match="a training size is 90, but only"):
        compare("films", model=small.name, **{**sizes, "train_sizes": (90,)})


@pytest.mark.parametrize("selection", ["dense", "mmr-dense", "mdl", "entropy"])
def test_selections_that_ask_a_model_ask_the_one_that_answers(small: Model, selection: str) -> None:
    """Its hidden states, or its probabilities, choose the demonstrations, the same every time."""
    settings = {**SMALL, "methods": ("few-shot",), "selection": selection, "draws": 1, "limit": 2}
    seen = []

    def noting(model: Model, prompts: Any, **options: Any) -> Any:
        seen.append([prompt.demonstration_ids for prompt in prompts])
        return score(model, prompts, **options)

    for out in ("one", "two"):
        compare("films", model=small.name, out=out, scorer=noting, **settings)
    assert seen[0] == seen[1]
    assert bytes_of("one") == bytes_of("two")


@pytest.mark.parametrize(
    ("rows", "epochs", "passes"), [(4, 5, 30), (32, 5, 30), (128, 5, 8), (512, 5, 5), (64, 20, 20)]
)
def test_few_rows_are_passed_over_more_often(rows: int, epochs: int, passes: int) -> None:
    """A set comes to 960 rows in up to 30 passes, or to the passes asked for."""
    assert passes_over(rows, epochs) == passes


def test_stopped_run_goes_on_to_the_same_bytes(small: Model) -> None:
    """A run that is stopped at any cell and started again ends with the cells of one that was not."""
    few = {**SMALL, "draws": 2, "seeds": 1}
    compare("films", model=small.name, out="whole", **few)
    for stop_at in (2, 5):
        calls = 0

        @own_scorer
        def stopping(*args: Any, stop_at: int = stop_at, **settings: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt
            return score(*args, **settings)

        out = f"stopped-{stop_at}"
        with pytest.raises(KeyboardInterrupt):
            compare("films", model=small.name, out=out, scorer=stopping, **few)
        assert len(bytes_of(out)) < len(bytes_of("whole"))
        compare("films", model=small.name, out=out, **few)
        assert bytes_of(out) == bytes_of("whole")


def test_finished_run_is_not_computed_again(small: Model) -> None:
    """The same command a second time reads every cell and gives the same result, costs included."""

    @own_scorer
    def nothing(*args: Any, **settings: Any) -> Any:
        raise AssertionError

    @own_trainer
    def no_training(*args: Any, **settings: Any) -> Any:
        raise AssertionError

    first = compare("films", model=small.name, **SMALL)
    assert compare("films", model=small.name, scorer=nothing, trainer=no_training, **SMALL) == first


@pytest.mark.parametrize("change", ["template", "seed", "data", "model"])
def test_anything_else_is_another_run(small: Model, project: Project, change: str) -> None:
    """One byte of the template, another seed, other data or another model never hit old cells."""
    settings = {**SMALL, "methods": ("zero-shot",), "out": "run"}
    compare("films", model=small.name, **settings)
    name = small.name
    if change == "template":
        project.write("templates/films/plain.jinja", TEMPLATE.replace("Text:", "Text :"))
    elif change == "seed":
        settings["seed"] = 1
    elif change == "data":
        project.write("data/test.jsonl", '{"sentence": "x", "label": 1}\n{"sentence": "y", "label": 0}\n')
    else:
        name = saved(random_model(window=256, seed=2), project.root / "other").name
    with pytest.raises(RunError, match=r"run: this run was started with .*; give another --out"):
        compare("films", model=name, **settings)


def test_items_of_the_test_never_train(small: Model, project: Project) -> None:
    """Training records that are also test records are left out, and the result says so."""
    rows = (project.root / "data/test.jsonl").read_text().splitlines()[:4]
    train = (project.root / "data/train.jsonl").read_text()
    project.write("data/train.jsonl", "\n".join(rows[:2]) + "\n" + train)
    project.write("data/test.jsonl", "\n".join(rows))
    result = compare("films", model=small.name, **{**SMALL, "methods": ("few-shot",), "draws": 1})
    assert result["records"]["pool"] == 6
    assert "2 training records that are also test records were left out" in result["notes"]


def test_one_file_is_cut_into_test_and_pool(small: Model) -> None:
    """With one file as the data, test and pool share no record."""
    result = compare("films", model=small.name, **{**SMALL, "data": "data/train.jsonl", "methods": ("few-shot",)})
    assert (result["records"]["test"], result["records"]["pool"]) == (3, 3)
    assert "data/train.jsonl is one file: 3 records were set aside for the test" in result["notes"][0]


def test_one_record_is_not_enough_for_one_file(small: Model, project: Project) -> None:
    """A file of one record cannot be cut into test and pool; for zero-shot it is the test."""
    project.write("one.jsonl", '{"sentence": "x", "label": 1}')
    with pytest.raises(DataError, match=r"one.jsonl: one record cannot be both tested on and learned from"):
        compare("films", model=small.name, **{**SMALL, "data": "one.jsonl", "methods": ("few-shot",)})
    result = compare("films", model=small.name, **{**SMALL, "data": "one.jsonl", "methods": ("zero-shot",)})
    assert result["records"] == {"test": 1, "pool": 0, "validation": 0}


def test_a_lost_training_cell_is_computed_again(small: Model) -> None:
    """Where a training's cell is gone, the same command makes it anew, to the same bytes."""
    settings = {**SMALL, "methods": ("lora",), "seeds": 1, "out": "run"}
    compare("films", model=small.name, **settings)
    before = bytes_of("run")
    lost = next(path for path in Path("run/cells").glob("*.json") if '"part":"training"' in path.read_text())
    lost.unlink()
    compare("films", model=small.name, **settings)
    assert bytes_of("run") == before


def test_equal_data_and_pool_stay_apart(small: Model) -> None:
    """Where the pool has just k records, training on it and on the k demonstrations are two methods."""
    methods = compare("films", model=small.name, **{**SMALL, "train_limit": 2, "methods": ("lora",)})["methods"]
    assert [(method["train_rows"], method["runs"]) for method in methods] == [(2, 2), (2, 2)]


def test_draws_cross_choices_with_two_orders() -> None:
    """Draws come in pairs of one choice in two different orders; a named order is kept."""
    draws = make_draws(CompareSettings(draws=10), "balanced", 4)
    assert [draw.seed for draw in draws] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert all(first.order != second.order for first, second in zip(draws[::2], draws[1::2], strict=True))
    assert {draw.order for draw in make_draws(CompareSettings(order="reversed"), "random", 4)} == {"reversed"}
    assert len({draw.seed for draw in make_draws(CompareSettings(order="reversed"), "random", 4)}) == 10
    assert [draw.seed for draw in make_draws(CompareSettings(draws=3), "balanced", 1)] == [0, 1, 2]


def test_demonstrations_beyond_the_window_are_refused_or_dropped(project: Project) -> None:
    """Too long a prompt is an error that names it, or loses whole demonstrations, which are counted."""
    short = saved(random_model(window=128), project.root / "short")
    settings = {**SMALL, "methods": ("few-shot",), "shots": (5,), "draws": 1}
    with pytest.raises(WindowError, match=r"4 of 4 prompts with k=5 .* window of 128 .*; lower -k or give --overlong"):
        compare("films", model=short.name, **settings)
    cell = compare("films", model=short.name, overlong="drop", **settings)["cells"][0]
    assert cell["dropped"] > 0


def test_as_many_demonstrations_are_kept_as_fit(project: Project) -> None:
    """One more than a prompt was left with would not fit the window."""
    short = saved(random_model(window=128), project.root / "short")
    task = load_task("films")
    bound = load_template("films/plain").bind(task)
    queries, pool = (load_records(task, split, data="data") for split in ("test", "train"))
    draw = Draw("random", "shuffled")
    prompts, dropped = fit_prompts(short, Condition("few-shot", bound, 5, draw), queries, pool, "drop")
    assert dropped == sum(5 - len(prompt.demonstration_ids) for prompt in prompts) > 0
    for query, prompt, length in zip(queries, prompts, prompt_lengths(short, prompts), strict=True):
        kept = len(prompt.demonstration_ids)
        longer = Condition("few-shot", bound, 5, draw).prompts([query], pool, keep=kept + 1)
        assert length <= 128 < prompt_lengths(short, longer)[0]


def test_a_cell_that_was_cut_is_named(small: Model) -> None:
    """A cell with fewer predictions than records is damage from outside, not a finished cell."""
    settings = {**SMALL, "methods": ("zero-shot",), "out": "run"}
    compare("films", model=small.name, **settings)
    (path,) = Path("run/cells").glob("*.json")
    cell = json.loads(path.read_text())
    cell["result"]["predictions"].pop()
    path.write_text(json.dumps(cell))
    with pytest.raises(RunError, match=f"{path.name}: was damaged or edited from outside"):
        compare("films", model=small.name, **settings)


def test_settings_out_of_range_are_explained(small: Model) -> None:
    """Unknown methods, too many shots and impossible numbers are one clear line each."""
    with pytest.raises(PromptkitError, match=r"unknown method 'few-shots'; known: .*Did you mean 'few-shot'\?"):
        compare("films", model=small.name, methods=("few-shots",), data="data")
    with pytest.raises(SelectionError, match="k=50 demonstrations were asked for, but the pool of 6 records"):
        compare("films", model=small.name, **{**SMALL, "shots": (50,), "methods": ("few-shot",)})
    with pytest.raises(TemplateError, match=r"sentiment/cot has a rationale, and none of the methods takes that"):
        compare("reviews", model="tiny", methods=("zero-shot",), templates=("cot",), limit=4)
    with pytest.raises(TemplateError, match="method 'few-shot-cot' shows rationales, and task 'films' has no field"):
        compare("films", model=small.name, **{**SMALL, "methods": ("few-shot-cot",)})
    with pytest.raises(PromptkitError, match="draws is 0; it must be 1 or more"):
        compare("films", model=small.name, **{**SMALL, "draws": 0})
