"""`--calibrate`: what is refused, what a cell keeps, and that every figure comes out of the cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from click.testing import CliRunner, Result

from promptkit.cli import cli
from promptkit.errors import PromptkitError
from promptkit.experiments.compare import compare
from promptkit.experiments.evaluate import prediction_row
from promptkit.models import Model
from promptkit.scoring import Prediction, Table, score
from promptkit.scoring.calibration import CALIBRATIONS, SCORES, Likelihoods
from promptkit.scoring.scoring_rules import load_table, store_table
from tests.conftest import Project, own_scorer
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

FAST: dict[str, Any] = {"limit": 5, "shots": (2,), "draws": 2, "data": "data", "methods": ("zero-shot", "few-shot")}
EVERY = ["sum", "token", "byte", "first", "pmi", "contextual", "domain", "batch"]


@pytest.fixture
def small(project: Project) -> Model:
    """A random model with a window of 256 tokens, saved as a folder of the project."""
    return saved(random_model(window=256), project.root / "small")


def cells_of(folder: str) -> dict[str, bytes]:
    """Return the bytes of a run's cells."""
    return {path.name: path.read_bytes() for path in Path(folder).glob("cells/*.json")}


def invoke(*arguments: str) -> Result:
    """Run the command line, its standard output apart."""
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


def test_every_score_and_calibration_stands_beside_the_sum(small: Model) -> None:
    """`all` gives eight readings per cell and per method; the sum's are the headline figures."""
    result = compare("films", model=small.name, calibrate=("all",), **FAST)
    for row in (*result["cells"], *result["methods"]):
        assert [each["name"] for each in row["calibrations"]] == EVERY
        assert row["calibrations"][0]["accuracy"] == row["accuracy"]
    for cell in result["cells"]:
        assert cell["calibrations"][0]["ci95"] == cell["ci95"]
        assert cell["calibrations"][0]["macro_f1"] == cell["macro_f1"]
    assert {"mean", "std", "min", "max", "ci95"} <= result["methods"][1]["calibrations"][-1]["accuracy"].keys()
    assert json.loads(json.dumps(result)) == result


def test_figures_are_those_of_the_formulas_on_the_stored_cell(small: Model) -> None:
    """Contextual and batch calibration, computed by hand from a cell's file, give the accuracy that is shown."""
    result = compare("films", model=small.name, calibrate=("contextual", "batch"), out="run", **FAST)
    stored = [json.loads(content)["result"] for content in cells_of("run").values()]
    wanted = []
    for cell in stored:
        p = numpy.exp([row["logprobs"] for row in cell["predictions"]])
        p = p / p.sum(axis=1, keepdims=True)
        labels = [row["label"] for row in cell["predictions"]]
        (alone,) = cell["calibration"]["content_free"]
        assert len(alone["content_free"]) == 3
        assert alone["domain"] == []
        p_cf = numpy.exp([row["logprobs"] for row in alone["content_free"]]).mean(axis=0)
        wanted.append([(chosen == labels).mean() for chosen in ((p / p_cf).argmax(1), (p / p.mean(axis=0)).argmax(1))])
    shown = [[each["accuracy"] for each in cell["calibrations"][1:]] for cell in result["cells"]]
    assert numpy.array(sorted(wanted)) == pytest.approx(numpy.array(sorted(shown)))


def test_cells_are_a_function_of_what_was_asked(small: Model) -> None:
    """Stopped and resumed, or in other batches: the same bytes. Not asked for: nothing of it in the cell."""
    compare("films", model=small.name, calibrate=("all",), out="whole", **FAST)
    calls = 0

    @own_scorer
    def stopping(*args: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return score(*args, **settings)

    with pytest.raises(KeyboardInterrupt):
        compare("films", model=small.name, calibrate=("all",), out="stopped", scorer=stopping, **FAST)
    compare("films", model=small.name, calibrate=("all",), out="stopped", **FAST)
    assert cells_of("stopped") == cells_of("whole")
    compare("films", model=small.name, out="plain", **FAST)
    assert all(b"calibration" not in content and b"readings" not in content for content in cells_of("plain").values())
    assert cells_of("plain").keys().isdisjoint(cells_of("whole"))


def test_content_free_prompts_need_one_pass_and_few_tokens(small: Model) -> None:
    """A cell is scored by one call; what is added is far less than a prompt for every content-free one."""
    calls = []

    @own_scorer
    def counting(*args: Any, **settings: Any) -> Any:
        calls.append(len(args[1]))
        return score(*args, **settings)

    settings = {**FAST, "methods": ("few-shot",), "draws": 1}
    plain = compare("films", model=small.name, **settings)["cells"][0]["cost"]
    asked = compare("films", model=small.name, calibrate=("all",), scorer=counting, **settings)["cells"][0]["cost"]
    assert calls == [5]
    prompt = plain["tokens_prompted"] / (5 * 2)
    assert plain["tokens_computed"] < asked["tokens_computed"] < plain["tokens_computed"] + 23 * prompt / 3


def test_a_stored_table_gives_every_score_again() -> None:
    """Also where prompts have content-free prompts of their own: all pairs of score and calibration."""

    def likelihoods(*sums: float) -> Likelihoods:
        return Likelihoods(sums, tuple(nats / 3 for nats in sums), (2, 3), (4, 5))

    def prediction(number: int) -> Prediction:
        own, others = likelihoods(-1.0, -2.0 + number), (likelihoods(-1.5, -0.5 - number), likelihoods(-2.5, -number))
        seen = {"first": own.first, "tokens": own.tokens, "bytes": own.bytes}
        return Prediction(str(number), own.logprobs, 0, 1, **seen, content_free=others, domain=others[::-1])

    table = Table(tuple(map(prediction, range(4))))
    again = load_table(
        {"predictions": [*map(prediction_row, table.predictions)], "calibration": store_table(table, ())}
    )
    for name in SCORES:
        for calibration in CALIBRATIONS:
            assert numpy.array(again.scores(name, calibration)) == pytest.approx(
                numpy.array(table.scores(name, calibration)), abs=1e-5
            )


def test_headline_figures_do_not_change(small: Model) -> None:
    """Asking for calibrations leaves every other figure as it was."""
    plain, asked = (compare("films", model=small.name, calibrate=c, **FAST)["cells"] for c in ((), ("all",)))
    for one, other in zip(plain, asked, strict=True):
        assert {key: one[key] for key in one if key != "cost"} == {key: other[key] for key in one if key != "cost"}
        assert other.keys() - one.keys() == {"calibrations"}


def test_content_free_prompts_lose_demonstrations_with_their_queries(project: Project) -> None:
    """With --overlong drop they follow the prompt they belong to, and fit the window as it does."""
    short = saved(random_model(window=128), project.root / "short")
    settings = {**FAST, "methods": ("few-shot",), "shots": (5,), "draws": 1, "limit": 4}
    seen = []

    def looking(model: Model, prompts: Any, **options: Any) -> Any:
        seen.extend(prompts)
        return score(model, prompts, **options)

    result = compare("films", model=short.name, overlong="drop", calibrate=("all",), scorer=looking, **settings)
    assert result["cells"][0]["dropped"] > 0
    for prompt in seen:
        assert len(prompt.demonstration_ids) < 5
        assert {o.demonstration_ids for o in (*prompt.content_free, *prompt.domain)} == {prompt.demonstration_ids}


def test_calibrated_adapters_stand_in_the_same_table(small: Model) -> None:
    """An adapter's cells are calibrated as the prompts' are."""
    settings = {**FAST, "methods": ("lora",), "seeds": 1, "epochs": 1, "rank": 2}
    cells = compare("films", model=small.name, calibrate=("domain",), **settings)["cells"]
    assert [[each["name"] for each in cell["calibrations"]] for cell in cells] == [["sum", "domain"]] * 2


def test_chain_of_thought_is_left_out_and_said(project: Project, small: Model) -> None:
    """Its cells have no calibrations, a note says why, and alone it is refused."""
    cot = "{% import 'films/plain.jinja' as plain %}{% set input = plain.input %}{% set target = plain.target %}"
    project.write("templates/films/cot.jinja", cot + "{% macro rationale(rationale) %} {{ rationale }}{% endmacro %}\n")
    settings = {**FAST, "methods": ("zero-shot", "zero-shot-cot"), "calibrate": ("batch",), "limit": 2}
    result = compare("films", model=small.name, **settings)
    assert ["calibrations" in cell for cell in result["cells"]] == [True, False]
    assert any(note.startswith("chain of thought is not calibrated") for note in result["notes"])
    with pytest.raises(PromptkitError, match="no method here can be calibrated; chain of thought is not"):
        compare("films", model=small.name, **{**settings, "methods": ("zero-shot-cot",)})


def test_what_a_task_has_no_use_for_is_refused(small: Model) -> None:
    """Unknown names, free text, and a domain that records with their own choices do not share."""
    with pytest.raises(PromptkitError, match=r"unknown calibration 'contextul'; .*Did you mean 'contextual'\?"):
        compare("films", model=small.name, calibrate=("contextul",), **FAST)
    with pytest.raises(PromptkitError, match="'all': task 'word-problems' is answered in free text"):
        compare("word-problems", model=small.name, methods=("zero-shot",), limit=2, calibrate=("all",))
    with pytest.raises(PromptkitError, match="'domain': the records of task 'quiz' have choices of their own"):
        compare("quiz", model=small.name, **quiz(), calibrate=("domain",))


def quiz() -> dict[str, Any]:
    """A task of multiple choice in the working directory, and what it is run with."""
    toml = 'description = "x"\ntemplates = "multiple-choice"\n[fields]\nquestion = "q"\nchoices = "c"\nlabel = "a"\n'
    Path("tasks/quiz.toml").write_text(toml + '[data]\npath = "nobody/quiz"\ntest = "test"\n')
    rows = [{"q": f"what is {n}?", "c": [f"a {n}", "a stone", "soup"], "a": f"a {n}"} for n in range(4)]
    Path("quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": "quiz.jsonl", "methods": ("zero-shot",)}


def test_choices_of_their_own_are_calibrated_each_by_itself(small: Model) -> None:
    """Lettered choices have a batch, worded ones have none, and a note says so."""
    lettered = compare("quiz", model=small.name, **quiz(), calibrate=("all",))["cells"][0]["calibrations"]
    assert [each["name"] for each in lettered] == [name for name in EVERY if name != "domain"]
    assert lettered[0]["macro_f1"] is None
    worded = compare("quiz", model=small.name, **quiz(), calibrate=("all",), templates=("multiple-choice/text",))
    assert [each["name"] for each in worded["cells"][0]["calibrations"]] == EVERY[:6]
    assert "batch calibration needs the same choices in every prompt: left out" in worded["notes"]


def test_command_line_shows_them_side_by_side(small: Model) -> None:
    """`score --calibrate` adds a table with a line per reading; `--scores` adds every item's."""
    arguments = ("score", "films", "--model", small.name, "--data", "data", "--limit", "4", "--calibrate", "all")
    printed = invoke(*arguments).stdout
    lines = printed.split("other scores and calibrations")[1].splitlines()
    assert [line.split()[0] for line in lines[3 : 3 + len(EVERY)]] == EVERY
    row = json.loads(invoke(*arguments, "--scores", "--json").stdout)["rows"][0]
    assert list(row["calibrations"]) == EVERY
    assert row["calibrations"]["sum"] == {"scores": row["logprobs"], "predicted": row["predicted"]}


def test_rows_of_a_file_bring_their_own(small: Model, project: Project) -> None:
    """A file's rows are calibrated as far as they go; without labels every item's scores still are."""
    row = {"prompt": "Text: warm\nSentiment:", "choices": [" yes", " no"], "label": 0}
    content_free = {"content_free": ["Text: N/A\nSentiment:", "Text: \nSentiment:"]}
    project.write("rows.jsonl", f"{json.dumps({**row, **content_free})}\n" * 3)
    ask = ("score", "rows.jsonl", "--model", small.name, "--json", "--scores")
    result = json.loads(invoke(*ask, "--calibrate", "all").stdout)
    assert [each["name"] for each in result["cells"][0]["calibrations"]] == [name for name in EVERY if name != "domain"]
    assert [each["name"] for each in result["methods"][0]["calibrations"]] == [n for n in EVERY if n != "domain"]
    assert result["rows"][0].keys() == {"id", "label", "predicted", "logprobs", "calibrations"}
    plain = json.loads(invoke(*ask).stdout)
    assert plain["cells"][0]["cost"]["tokens_computed"] < result["cells"][0]["cost"]["tokens_computed"]
    assert "calibrations" not in plain["rows"][0]
    del row["label"]
    project.write("rows.jsonl", f"{json.dumps(row)}\n" * 3)
    unlabelled = json.loads(invoke(*ask, "--calibrate", "batch").stdout)
    assert unlabelled["cells"][0]["calibrations"][0]["accuracy"] is None
    assert list(unlabelled["rows"][0]["calibrations"]) == ["sum", "batch"]
    with pytest.raises(PromptkitError, match="'contextual': needs a list of prompts `content_free` in every row"):
        invoke(*ask, "--calibrate", "contextual")
