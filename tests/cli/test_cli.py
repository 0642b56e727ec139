"""The command line: results on stdout, one line per error on stderr, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pytest

from promptkit.__main__ import main as started
from promptkit.building.manifest import RowTally
from promptkit.cli import cli, main
from promptkit.experiments.run_folder import Run
from tests.conftest import TASK, TEMPLATE, Project
from tests.experiments.test_compare import COST, TOP, bytes_of
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

FEW = ["--data", "data", "--limit", "3", "--model", "small", "-k", "1", "--draws", "2", "--seeds", "1", "--epochs", "1"]


@pytest.fixture
def small(project: Project) -> Project:
    """A project with a random model in the folder `small`."""
    saved(random_model(window=200), project.root / "small")
    return project


class Ran:
    """What one command line did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command line in this process."""

    def call(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["promptkit", *words])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return call


def test_compare_prints_one_json_object(small: Project, run: Any) -> None:
    """With --json stdout is one object with every documented key; the figures it names are there."""
    ran = run("compare", "films", *FEW, "--json")
    assert (ran.code, ran.out.count("\n")) == (0, 1)
    result = json.loads(ran.out)
    assert result.keys() >= TOP
    assert all(Path(figure).stat().st_size > 1000 for figure in result["figures"])
    assert {Path(figure).suffix for figure in result["figures"]} == {".svg", ".png"}


def test_compare_prints_a_table_of_80_columns(small: Project, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --json a person reads a table: methods, break-even counts, where the run is."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = run("compare", "films", *FEW)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    for word in ("zero-shot", "few-shot", "lora", "Break-even", "runs/films-"):
        assert word in ran.out


def test_build_says_what_it_left_out_behind_the_rows(project: Project, run: Any) -> None:
    """What is wrong with the rows, or with how they are asked for, stays the only line on stderr."""
    ran = run("build", "films", "--as", "pairs", "--data", "data", "--out", "rows.jsonl")
    report, written = ran.err.splitlines()
    assert (ran.code, report.partition(":")[0], written) == (0, "films", "6 rows written to rows.jsonl")
    for wrong in (["-k", "90"], ["--shards", "90"], ["--selection", "none"]):
        ran = run("build", "films", "--as", "pairs", "--data", "data", "--out", "more.jsonl", *wrong)
        assert (ran.code, ran.err.count("\n")) == (1, 1), ran.err


def test_a_reader_that_leaves_is_no_error(project: Project) -> None:
    """`promptkit … | head -1` ends with 0 and without a word."""
    words = [sys.executable, "-m", "promptkit", "build", "films", "--as", "pairs", "--data", "data", "--epochs", "9"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_score_of_a_file_gives_a_row_per_line(small: Project, run: Any) -> None:
    """Ready-made rows are scored: nats per choice, the predicted index, accuracy where labels are known."""
    rows = [{"prompt": "Text: good\nSentiment:", "choices": [" positive", " negative"], "label": 0, "id": "a"}]
    small.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "id": "b"}]))
    result = json.loads(run("score", "rows.jsonl", "--model", "small", "--json", "--scores").out)
    assert [row["id"] for row in result["rows"]] == ["a", "b"]
    assert all(len(row["logprobs"]) == 2 and max(row["logprobs"]) < 0 for row in result["rows"])
    assert result["cells"][0]["n"] == 2
    assert result["cells"][0]["cost"].keys() == COST
    unlabelled = {"prompt": "x", "choices": [" a", " b"]}
    small.write("rows.jsonl", json.dumps(unlabelled))
    result = json.loads(run("score", "rows.jsonl", "--model", "small", "--json", "--scores").out)
    assert (result["cells"][0]["accuracy"], result["rows"][0]["id"]) == (None, "0")


def test_bad_rows_are_named_by_file_and_line(small: Project, run: Any) -> None:
    """A row that cannot be scored or trained on is named by its file and line."""
    small.write("rows.jsonl", '{"prompt": "x", "choices": [" a"]}\n\n{"prompt": "x", "choices": []}\n')
    assert "promptkit: rows.jsonl:3: no choices" in run("score", "rows.jsonl", "--model", "small").err
    small.write("pairs.jsonl", '{"prompt": "x", "completion": " y"}\n{"prompt": "x"}\n')
    ran = run("train", "pairs.jsonl", "--model", "small", "--out", "adapter")
    assert ran.code == 1
    assert "pairs.jsonl:2: " in ran.err
    ran = run("score", "rows.jsonl", "-k", "2")
    assert (ran.code, "--shots goes with a task, not with a file of rows" in ran.err) == (2, True)


def test_a_file_of_rows_has_a_table_too(small: Project, run: Any) -> None:
    """Without --json the accuracy of ready-made rows is printed as a table."""
    small.write("rows.jsonl", '{"prompt": "x", "choices": [" a", " b"], "label": 0}\n')
    out = run("score", "rows.jsonl", "--model", "small").out
    assert "zero-shot" in out
    assert "None" not in out


@pytest.mark.parametrize("chat", ["--plain", "--chat"])
def test_score_of_a_task_runs_each_number_of_shots(small: Project, run: Any, chat: str) -> None:
    """Zero and more shots are cells of one run, with every item's scores where asked for."""
    words = ["score", "films", "--data", "data", "--model", "small", "-k", "0,1", "--limit", "3", "--json", "--scores"]
    result = json.loads(run(*words, chat).out)
    assert [(cell["method"], cell["k"], len(cell["rows"])) for cell in result["cells"]] == [
        ("zero-shot", 0, 3),
        ("few-shot", 1, 3),
    ]
    assert result.keys() >= TOP


def test_train_then_predict(small: Project, run: Any) -> None:
    """An adapter is trained on a task, and labels a file of new records with scores for every label."""
    words = ["train", "films", "--data", "data", "--model", "small", "--epochs", "1"]
    trained = run(*words, "--out", "adapter", "--json")
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["rows"] == 6
    small.write("new.jsonl", '{"sentence": "grey soup", "id": "n1"}\n{"sentence": "a warm film"}\n')
    ran = run("predict", "new.jsonl", "--adapter", "adapter")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["id"] for row in rows] == ["n1", "test-1"]
    for row in rows:
        assert row["predicted"] == max(row["scores"], key=row["scores"].get)
        assert set(row["scores"]) == {"negative", "positive"}
    assert run("predict", "new.jsonl", "--adapter", "adapter", "--out", "out.jsonl").code == 0
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == rows
    small.write("templates/films/plain.jinja", TEMPLATE.replace("Text", "Film"))
    again = run("predict", "new.jsonl", "--adapter", "adapter")
    assert again.code == 1
    assert "the template has changed since the adapter adapter was trained with it (its hash is" in again.err
    again = run("predict", "new.jsonl", "--adapter", "adapter", "--template", "films/plain")
    assert (again.code, len(again.out.splitlines())) == (0, 2)
    assert again.err.startswith("promptkit: warning: ")


@pytest.mark.parametrize("kind", ["prompts", "pairs"])
def test_build_writes_the_documented_rows(project: Project, run: Any, kind: str) -> None:
    """Rows have the documented keys, on stdout and in a file alike."""
    ran = run("build", "films", "--as", kind, "--data", "data", "--limit", "2", "--chat")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    keys = {"prompts": {"choices", "demonstration_ids"}, "pairs": {"completion"}}[kind]
    assert all(row.keys() >= {"id", "prompt", "label", "template", "task", "messages", *keys} for row in rows)
    run("build", "films", "--as", kind, "--data", "data", "--limit", "2", "--chat", "--out", "rows.jsonl")
    assert [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()] == rows


def test_show_prints_what_the_model_sees(small: Project, run: Any) -> None:
    """Parts, counts, tokens with their loss mask, and choices; brackets in data are not markup."""
    small.write("data/test.jsonl", '{"sentence": "[red]a[/red] [positive] film", "label": 1}')
    ran = run(*["show", "films", "--data", "data", "--model", "small", "-k", "1"])
    assert "[red]a[/red] [positive] film" in ran.out
    assert "Label the following review" in ran.out
    assert "⟦" in ran.out
    ran = run("show", "films", "--data", "data", "--model", "small", "--json", "--chat")
    view = json.loads(ran.out)["prompts"][0]
    assert "".join(text for text, loss in view["tokens"] if loss) == "positive"  # this tokenizer's template trims


def test_show_cuts_one_file_as_score_does(small: Project, run: Any) -> None:
    """Of one file the tested half is shown, with demonstrations of the other half that ask nothing it asks."""
    rows = [f'{{"id": "r{number}", "sentence": "text {number % 30}", "label": {number % 2}}}' for number in range(40)]
    small.write("all.jsonl", "\n".join(rows))
    common = ["films", "--data", "all.jsonl", "--model", "small", "-k", "1", "--limit", "5", "--json"]
    shown, scored = (json.loads(run(verb, *common).out) for verb in ("show", "score"))
    assert scored["records"]["test"] == 5
    said = json.loads(run("score", *common, "--scores").out)["rows"]
    assert [view["id"] for view in shown["prompts"]] == [row["id"] for row in said]
    assert "left out" in run("show", *common).err


def test_show_marks_every_token_that_is_trained(small: Project, run: Any) -> None:
    """An answer that is not one of the choices is followed by the end, and characters of several tokens are whole."""
    task, template = Path("tasks/films.toml"), Path("templates/films/plain.jinja")
    task.write_text(task.read_text().replace('labels = ["negative", "positive"]\n', ""))
    template.write_text(
        '{% set answer = "(.+)" %}' + "{% macro input(text) %}{{ text }}:{% endmacro %}"
        "{% macro target(label) %} {{ label }}{% endmacro %}"
    )
    small.write("data/test.jsonl", '{"sentence": "\u6620\u753b \U0001f600", "label": "\u597d"}')
    view = json.loads(run("show", "films", "--data", "data", "--model", "small", "--json").out)["prompts"][0]
    assert "".join(text for text, loss in view["tokens"] if not loss) == "\u6620\u753b \U0001f600:"
    assert "".join(text for text, loss in view["tokens"] if loss) == " \u597d</s>"


def test_lists_and_help_name_every_verb(run: Any, project: Project) -> None:
    """Every verb has help, every option of it has a text for people, and lists name what can be named."""
    for name, command in cli.commands.items():
        ran = run(name, "--help")
        assert ran.code == 0
        assert command.help
        assert all(option.help for option in command.params if isinstance(option, click.Option)), name
        assert not re.search(r"<=x|\d{10}|default: \(", ran.out), name  # limits of machines, tuples of Python
    listed = json.loads(run("list", "--json").out)
    assert listed.keys() == {"tasks", "templates", "methods", "selections", "orders", "presets", "models"}
    assert "films" in run("list", "tasks").out


def test_lint_exits_with_1_for_defects(run: Any, project: Project) -> None:
    """No defect: exit 0; a defect: its line on stdout and exit 1."""
    assert run("lint").code == 0
    project.write("templates/films/plain.jinja", TEMPLATE.replace("{{ text }}", "{{ texts }}"))
    ran = run("lint", "templates")
    assert (ran.code, ran.out.count("\n")) == (1, 1)
    assert "templates/films/plain.jinja:7: 'texts' is not defined" in ran.out


def plant(project: Project, what: str) -> None:
    """Put one defect into a project that has none."""
    files: dict[str, tuple[str, str]] = {
        "column": ("tasks/films.toml", TASK.replace('"sentence"', '"sentense"')),
        "label": ("data/test.jsonl", '{"sentence": "x", "label": "good"}'),
        "syntax": ("templates/films/plain.jinja", TEMPLATE.replace("{{ text }}", "{{ text")),
        "macro": ("templates/films/plain.jinja", TEMPLATE.replace("macro target", "macro goal")),
        "field": (
            "templates/films/plain.jinja",
            TEMPLATE.replace("input(text)", "input(texts)").replace("{{ text }}", "{{ texts }}"),
        ),
        "sandbox": ("templates/films/plain.jinja", TEMPLATE.replace("{{ text }}", "{{ text.__class__ }}")),
        "json": ("data/test.jsonl", '{"sentence": "x", "label": 1}\nnot json\n'),
        "empty": ("data/test.jsonl", ""),
    }
    if what in files:
        project.write(*files[what])
    if what == "tokenizer":
        for path in (project.root / "small").glob("*token*"):
            path.unlink()
    if what == "path":
        project.write("out/mine.txt", "mine")


@pytest.mark.parametrize(
    ("what", "words", "message"),
    [
        ("task", "compare flims", "unknown task 'flims'; known:"),
        ("template", "compare films --template plian", "no template matches 'plian'"),
        ("model", "compare films --model nothing-like-this", "nothing-like-this"),
        ("column", "compare films", "data/test.jsonl:1: no column 'sentense' for the field 'text' of task 'films'"),
        ("label", "compare films", "data/test.jsonl:1: label 'good' is not one of 'negative', 'positive'"),
        ("syntax", "compare films", "templates/films/plain.jinja:8: syntax error"),
        ("macro", "compare films", "templates/films/plain.jinja: no macro 'target'"),
        ("field", "compare films", "templates/films/plain.jinja:6: input asks for 'texts'"),
        ("sandbox", "compare films", "templates/films/plain.jinja:7: the sandbox refuses the attribute '__class__'"),
        ("json", "compare films", "data/test.jsonl:2: not JSON"),
        ("empty", "compare films", "split 'test' of task 'films' has no records (data/test.jsonl)"),
        ("k", "compare films -k 7", "k=7 demonstrations were asked for, but the pool of 6 records"),
        ("window", "compare films -k 6 --methods few-shot", "do not fit the window of 200 tokens"),
        ("tokenizer", "compare films", "small"),
        ("path", "compare films --out out", "out: exists and holds no run (no run.json); give another --out"),
    ],
)
def test_bad_input_is_one_clear_line(small: Project, run: Any, what: str, words: str, message: str) -> None:
    """Exit code 1, one line on stderr that says where, what and the fix; no traceback, no run folder."""
    plant(small, what)
    if what == "window":
        rows = "".join(f'{{"sentence": "{number} {"long " * 12}", "label": {number % 2}}}\n' for number in range(6))
        small.write("data/train.jsonl", rows)
    model = [] if "--model" in words else ["--model", "small"]
    ran = run(*words.split(), "--data", "data", *model)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("promptkit: ")
    assert message in ran.err
    assert "Traceback" not in ran.err
    cells = [*small.root.glob("runs/*/cells/*"), *small.root.glob("runs/*/adapters/*")]
    assert what == "window" or not cells


def test_usage_errors_exit_with_2(run: Any, project: Project) -> None:
    """A flag that does not exist or a number that is none is a usage error."""
    assert run("compare", "films", "--nonsense").code == 2
    assert run("compare", "films", "-k", "four").code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "films", "--out", ""], "'--out': is empty; leave it out for the default"),
        (["build", "films", "--selection", ""], "'--selection': is empty"),
        (["build", "films", "-k", "9" * 20], f"{'9' * 20} is more than {sys.maxsize}"),
        (["build", "films", "--limit", "9" * 20], "'--limit': "),
        (["train", "films", "--seed-for", "init=1,init=2"], "'init=1,init=2' names one source twice"),
        (["train", "pairs.jsonl", "--natural"], "--natural goes with a task, not with a file of rows"),
        (["score", "rows.jsonl", "--shots", "4"], "--shots goes with a task, not with a file of rows"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(run: Any, project: Project, words: list[str], message: str) -> None:
    """The option is named as it was given, and nothing runs."""
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_shards_are_not_named_as_one_file(project: Project, run: Any) -> None:
    """The name that is given is that of no file."""
    ran = run("build", "films", "--data", "data", "--as", "pairs", "--shards", "2", "--out", "set/train.parquet")
    assert ran.err.endswith(" rows written to shards of set/train.parquet\n")
    assert not Path("set/train.parquet").exists()


@pytest.mark.parametrize("verb", ["build", "score"])
def test_a_name_that_is_no_text_is_refused_before_the_work(small: Project, run: Any, verb: str) -> None:
    """What was made would have to name it."""
    model = ["--model", "small"] if verb == "score" else []
    ran = run(verb, "films", "--data", "data", *model, "--out", os.fsdecode(b"q\xff.jsonl"))
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "the name is not UTF-8; give another --out" in ran.err


def test_a_stop_while_the_command_is_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Ctrl-C right after the start has no traceback either."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "promptkit.cli")
    monkeypatch.setattr("importlib._bootstrap._find_spec", stop)
    with pytest.raises(SystemExit) as exit_:
        started()
    assert (exit_.value.code, capsys.readouterr().err) == (130, "promptkit: stopped\n")


def test_existing_output_is_never_overwritten(project: Project, run: Any) -> None:
    """`build --out` on a file that exists changes nothing."""
    project.write("rows.jsonl", "mine")
    ran = run("build", "films", "--data", "data", "--out", "rows.jsonl")
    assert (ran.code, Path("rows.jsonl").read_text()) == (1, "mine")
    assert "rows.jsonl: exists already; give another --out, or remove it first" in ran.err


@pytest.mark.parametrize("words", [["--as", "pairs"], ["--json"], []])
def test_rows_are_utf_8_in_every_locale(project: Project, words: list[str]) -> None:
    """What is printed for programs has every character, whatever the terminal is said to show."""
    project.write("data/test.jsonl", '{"sentence": "naïve \u2014 \u597d", "label": 1}\n')
    command = [sys.executable, "-m", "promptkit", "build", "films", "--data", "data", "--split", "test", *words]
    ran = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True)
    assert "Text: naïve \u2014 \u597d" in ran.stdout.decode("utf-8")


def test_a_terminal_without_a_character_shows_its_number(project: Project) -> None:
    """What is printed for people is there in every locale."""
    project.write("data/test.jsonl", '{"sentence": "naïve \u597d", "label": 1}\n')
    command = [sys.executable, "-m", "promptkit", "show", "films", "--data", "data"]
    ran = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True)
    assert "naïve \\u597d" in ran.stdout.decode("latin-1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_no_piece_of_a_file(
    project: Project, run: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """SIGTERM and Ctrl-C end a verb in order: unfinished files and new folders go, and nothing is promised."""

    def stopped(self: RowTally) -> Any:
        yield from self.training_set.render(next(self.training_set.items()))
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(RowTally, "rows", stopped)
    before = sorted(project.root.rglob("*"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background was told to ignore it
    ran = run("build", "films", "--data", "data", "--as", "pairs", "--out", "new/rows.jsonl")
    assert (ran.code, ran.err.splitlines()[-1]) == (128 + number, "promptkit: stopped")
    assert sorted(project.root.rglob("*")) == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_stop_says_what_is_kept(small: Project, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that can go on says so, and what it goes on with."""

    def stopped(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(Run, "save", stopped)
    ran = run("compare", "films", *FEW)
    assert (ran.code, ran.err.splitlines()[-1]) == (
        128 + signal.SIGTERM,
        "promptkit: stopped; finished cells of the run are kept, the same command goes on",
    )


def test_full_disk_is_one_line_and_leaves_nothing(small: Project, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written any more, no piece of a file stays."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for words in (["compare", "films", *FEW], ["build", "films", "--data", "data", "--out", "rows.jsonl"]):
        ran = run(*words)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "No space left on device" in ran.err
    assert not [path for path in small.root.rglob("*") if path.is_file() and "runs" in path.parts]
    assert not Path("rows.jsonl").exists()


def test_killed_run_goes_on(small: Project, run: Any) -> None:
    """SIGKILL at some moment, then the same command: the run ends like one that was left alone."""
    command = [sys.executable, "-c", "from promptkit.cli import main; main()", "compare", "films", *FEW]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", "killed"], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len([*Path("killed").glob("cells/*.json")]) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    Path("killed/cells/.abc.json.00000000.999999.0.tmp").write_text("half a cell")
    assert run("compare", "films", *FEW, "--out", "killed", "--json").code == 0
    assert run("compare", "films", *FEW, "--out", "whole", "--json").code == 0
    assert bytes_of("killed") == bytes_of("whole")


def test_a_fault_of_promptkits_own_is_one_line_and_a_file(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What nobody foresaw ends with exit code 70: one line that names a file with the traceback."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        raise RuntimeError("line one\nline two")

    monkeypatch.setitem(cli.commands, "break", click.command("break")(fail))
    ran = run("break")
    assert (ran.code, ran.out, ran.err.count("\n")) == (70, "", 1)
    assert ran.err.startswith(
        "promptkit: a fault in promptkit (RuntimeError: line one line two); please report it with "
    )
    kept = Path(ran.err.split()[-1]).read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in kept
    assert "['promptkit', 'break']" in kept


def test_an_endless_message_is_cut(run: Any) -> None:
    """Of a value of thousands of characters, an error shows the beginning and the end."""
    ran = run("score", "9" * 5000)
    assert ran.code == 1
    assert len(ran.err) < 2200
    assert ran.err.endswith("\n")


@pytest.mark.parametrize("given", ["--5", "9" * 5000, "-5", "٣"])
def test_a_number_of_templates_that_is_none_is_one_line(project: Project, run: Any, given: str) -> None:
    """`--per-record` takes a number from 1 or `all`; everything else is an expected error."""
    ran = run("build", "films", "--as", "pairs", "--data", "data", "--per-record", given)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "per_record" in ran.err


def test_an_endless_number_of_an_order_is_one_line(project: Project, run: Any) -> None:
    """An order of more digits than can be read is an unknown order."""
    ran = run("build", "films", "--as", "prompts", "--data", "data", "-k", "1", "--order", "9" * 5000)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "unknown order" in ran.err


def test_how_files_are_read_goes_with_data(project: Project, run: Any) -> None:
    """--delimiter, --quoting and --labels-are are taken by every verb with --data, and go with it."""
    project.write("rows.csv", "sentence:label\nx,y:1\nz:2\n")
    result = run(
        "build", "films", "--split", "test", "--data", "rows.csv", "--delimiter", ":", "--labels-are", "index1"
    )
    assert [json.loads(line)["label"] for line in result.out.splitlines()] == [0, 1]
    result = run("build", "films", "--data", "rows.csv", "--delimiter", "::")
    assert result.code == 1
    for verb in ("build", "compare", "study", "score", "train", "show"):
        result = run(verb, "films", "--delimiter", ":")
        assert (result.code, "--delimiter goes with --data" in result.err) == (2, True)
