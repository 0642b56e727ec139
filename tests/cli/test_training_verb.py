"""`promptkit train`: what it draws, which number format it takes, where it reports, and how it goes on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from promptkit.adapters.card import read_card
from promptkit.cli.main import cli
from promptkit.cli.verbs import training
from promptkit.cli.verbs.scoring import score_task
from promptkit.cli.verbs.training import train_source
from promptkit.data.tasks import load_task
from promptkit.errors import PromptkitWarning, TrainError
from promptkit.templating.binding import bind_matching
from promptkit.training import precision, train
from promptkit.training import trackers as reporting
from promptkit.training.batches import encode_pairs, read_pairs
from tests.conftest import TEMPLATE, Project
from tests.helpers.training_fakes import files, model, rows, saved

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a small random model; nothing says that several processes were launched."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return saved(model(window=256), tmp_path / "base").name


def warned(*words: str) -> list[str]:
    """Run a command, and return the notes on stderr and the warnings that `main` would print there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PromptkitWarning)
        done = CliRunner().invoke(cli, [*words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    return [*notes, *(str(each.message) for each in caught if each.category is PromptkitWarning)]


@pytest.fixture
def learn(project: Project, base: str) -> Callable[..., dict[str, Any]]:
    """Train on the project's task with one epoch, into a folder named after what is given."""

    def run(**given: Any) -> dict[str, Any]:
        out = "-".join(f"{name}-{value}" for name, value in given.items() if name != "templates") or "plain"
        settings = {"model": base, "data": "data", "device": "cpu", "epochs": 1, "out": f"made/{out}", **given}
        return train_source("films", **settings)

    return run


@pytest.mark.parametrize("limit", [None, 6])
def test_labels_are_balanced_where_that_is_asked(project: Project, limit: int | None) -> None:
    """As many records of each label, in training and in validation, however rare the one is."""
    records = [{"sentence": f"text {number}", "label": int(number < 12)} for number in range(60)]
    project.write("data/train.jsonl", "".join(f"{json.dumps(record)}\n" for record in records))
    task = load_task("films")
    bounds = bind_matching(task, ())
    for seed in range(5):
        pairs, validation = training._training_set(
            task, bounds, "data", {"data": seed, "template": 0}, False, limit, balance=True
        )
        for part in (pairs, validation):
            assert sum(row.label == 0 for row in part) == sum(row.label == 1 for row in part)
        assert len(pairs) == limit if limit else len(pairs) > 12
    with pytest.raises(
        TrainError, match=r"do not have each of 2 labels in 1 of them; raise --train-limit, or leave --ba"
    ):
        training._training_set(task, bounds, "data", {"data": 0, "template": 0}, False, 1, balance=True)


def test_training_keeps_to_its_half_of_one_file(learn: Callable[..., dict[str, Any]], project: Project) -> None:
    """`train --data FILE` learns one half, and scoring the adapter on that file the other; others are whole."""
    records = [{"sentence": f"text {number}", "label": number % 2} for number in range(40)]
    project.write("one.jsonl", "".join(f"{json.dumps(record)}\n" for record in records))
    project.write("other.jsonl", "".join(f"{json.dumps({**record, 'label': 0})}\n" for record in records))
    made = learn(data="one.jsonl", seed=3, out="made/one")
    assert made["rows"] == 18
    assert made["notes"] == ["one.jsonl is one file: 20 records were set aside for the test, 20 for training"]
    scored = {
        (model, data): score_task("films", model=model, data=data, shots=(0,), templates=(), limit=None)
        for model, data in ((made["adapter"], "one.jsonl"), (made["adapter"], "other.jsonl"), ("base", "one.jsonl"))
    }
    assert [result["records"]["test"] for result in scored.values()] == [20, 40, 40]


def test_labels_without_a_training_row_are_said(base: str, project: Project) -> None:
    """Training and building pairs name them on stderr, of a task and of a file of rows."""
    project.write("few/train.jsonl", "".join(f'{{"sentence": "text {n}", "label": 0}}\n' for n in range(12)))
    project.write("few/test.jsonl", '{"sentence": "good", "label": 1}\n')
    rest = ["--model", base, "--device", "cpu", "--epochs", "1", "--rank", "1", "--json"]
    lines = []
    for words in (
        ["train", "films", "--data", "few", "--out", "a", *rest],
        ["build", "films", "--as", "pairs", "--data", "few", "--out", "pairs.jsonl"],
        ["train", "pairs.jsonl", "--out", "b", *rest],
        ["compare", "films", "--data", "few", "--methods", "lora", "--seeds", "1", *rest],
        ["study", "films", "--data", "few", "--methods", "lora", "--seeds", "1", *rest[:-3], "--json"],
    ):
        done = CliRunner().invoke(cli, words, catch_exceptions=False)
        lines.append([line for line in done.stderr.splitlines() if "no training row has the label 'positive'" in line])
    assert [len(found) for found in lines] == [1, 1, 1, 1, 1]


def test_an_adapter_is_asked_as_it_was_trained(learn: Callable[..., dict[str, Any]], project: Project) -> None:
    """`score` and `show` follow the card unless told otherwise; what differs is one line that names both forms."""
    project.write("templates/films/short.jinja", TEMPLATE.replace("Text: ", "T: "))
    adapter = learn(chat=True, templates=["short"], out="made/a")["adapter"]
    common = ["films", "--data", "data", "--model", adapter]

    def err(*words: str) -> list[str]:
        return [line for line in warned(*words) if adapter in line]

    followed = f"note: {adapter} is asked as it was trained, with template films/short and chat turns"
    for verb in ("score", "show"):
        assert err(verb, *common) == [followed]
    assert err("score", *common, "--chat", "--template", "short") == []
    assert err("score", *common, "--plain", "--template", "plain") == [
        f"{adapter}: was trained as chat, with template films/short, and is asked as plain text, with films/plain"
    ]
    plain = f"{adapter}: was trained as chat, with template films/short, and is asked as plain text"
    for verb, *more in (("compare", "--methods", "zero-shot", "--json"), ("study", "--methods", "zero-shot", "--json")):
        (line,) = err(verb, *common, *more)
        assert line.startswith(plain)
    assert not err("compare", *common, "--methods", "zero-shot", "--json", "--chat", "--template", "short")
    (line,) = err("score", *common, "-k", "2")[1:]
    assert line.endswith("was trained without demonstrations, and is asked with 2")
    few = learn(templates=["plain"], out="made/few")["adapter"]
    project.write("templates/films/plain.jinja", TEMPLATE.replace("Text: ", "Film: "))
    (line,) = [line for line in warned("score", "films", "--data", "data", "--model", few) if "trained" in line]
    assert "was trained with another version of template films/plain, and is asked with the file as it is now" in line
    project.write("templates/films/plain.jinja", TEMPLATE)
    task = (project.root / "tasks/films.toml").read_text()
    project.write("tasks/films.toml", task.replace('["negative", "positive"]', '["bad", "good"]'))
    for verb in ("score", "compare", "study"):
        found = warned(verb, "films", "--data", "data", "--model", few)
        (line,) = [line for line in found if "another version of task films" in line]
        assert line.endswith("for ' bad', ' good'")


def test_rows_are_asked_as_an_adapter_was_trained(learn: Callable[..., dict[str, Any]], project: Project) -> None:
    """Rows with turns are asked in chat; those without, and those of another template, are one line."""
    adapter = learn(chat=True, out="made/a")["adapter"]
    row: dict[str, Any] = {"prompt": "Text: a", "choices": [" negative", " positive"]}
    turns = [{"role": "user", "content": "Text: a"}]
    lines = []
    for name, more in (
        ("chat", {"messages": turns}),
        ("plain", {}),
        ("other", {"template": "films/b", "task": "films"}),
    ):
        project.write(f"{name}.jsonl", json.dumps({**row, **more}) + "\n")
        lines.append([line.split(adapter)[1] for line in warned("score", f"{name}.jsonl", "--model", adapter)])
    assert lines == [
        [" is asked as it was trained, with chat turns"],
        [": was trained as chat, and is asked as plain text"],
        [": was trained as chat, with template films/plain, and is asked as plain text, with films/b"],
    ]


def test_each_record_gets_a_template_by_its_seed(learn: Callable[..., dict[str, Any]], project: Project) -> None:
    """Of several templates each record gets one; another seed for templates draws anew and moves nothing else."""
    project.write("templates/films/short.jinja", TEMPLATE.replace("Text: ", "T: "))
    made = [
        learn(templates=["films/*"], seeds={"template": seed}, out=f"made/{number}")
        for number, seed in enumerate((0, 0, 1, 2))
    ]
    assert made[0]["template"] == "films/plain, films/short"
    assert {(each["settings"]["seeds"]["template"], each["settings"]["seeds"]["data"]) for each in made} == {
        *((seed, 0) for seed in (0, 1, 2))
    }
    hashes = [read_card(each["adapter"]).train.pairs_hash for each in made]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) > 1


def test_number_format_by_the_clock(
    learn: Callable[..., dict[str, Any]], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` takes bfloat16 where its step is faster by more than the clock's noise; what it took is in the card."""
    seconds = {"float32": 1.0}
    monkeypatch.setattr(precision, "_time_step", lambda timed, rows: seconds[timed.dtype])
    for bfloat16, wanted in ((0.5, "bfloat16"), (0.95, "float32"), (2.0, "float32")):
        seconds["bfloat16"] = bfloat16
        made = learn(dtype="auto", out=f"made/{bfloat16}")
        assert (made["dtype"], read_card(made["adapter"]).dtype) == (wanted, wanted)
        assert made["dtype_seconds"] == seconds
    assert files_of(learn(dtype="float32")) == files_of(made)


def test_step_is_timed_in_both_formats() -> None:
    """The measurement runs, leaves the model as it was, and takes about a second."""
    fake = model()
    timing = precision.choose_dtype(fake, rows(20))
    assert timing.seconds.keys() == {"float32", "bfloat16"}
    assert all(seconds > 0 for seconds in timing.seconds.values())
    assert fake.network.dtype == precision.torch.float32


def test_step_that_was_held_up_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that waited for other work, however long, is not the time of its number format."""
    took = iter([1.0, 4.0, 0.03])
    monkeypatch.setattr(precision, "_step", lambda network, batch: next(took))
    assert precision._time_step(model(), encode_pairs(model(), read_pairs(rows(8))), budget=0.0) == 0.03


def test_stopped_training_keeps_its_number_format(
    learn: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that goes on does not ask the clock again, and ends as if it had not been stopped."""
    monkeypatch.setattr(precision, "_time_step", lambda timed, rows: {"float32": 2.0, "bfloat16": 1.0}[timed.dtype])
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)

    def stop(name: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

        return progress

    given: dict[str, Any] = {"dtype": "auto", "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        learn(**given, track=stop, out="made/stopped")
    monkeypatch.setattr(precision, "_time_step", lambda timed, rows: {"float32": 1.0, "bfloat16": 2.0}[timed.dtype])
    went_on = learn(**given, out="made/stopped")
    monkeypatch.undo()
    assert went_on["dtype"] == "bfloat16"


def test_options_reach_the_training(base: str, project: Project) -> None:
    """Kind, targets, layers, seeds and memory are passed on; the JSON object says what was trained."""
    given = [
        *("--adapter-kind", "dora", "--rank", "2", "--alpha", "3", "--targets", "q_proj,v_proj", "--top-layers", "1"),
        *("--seed", "4", "--seed-for", "init=3,order=5", "--micro-batch", "2", "--checkpointing", "--epochs", "1"),
    ]
    command = [
        "train",
        "films",
        "--model",
        base,
        "--data",
        "data",
        "--device",
        "cpu",
        "--out",
        "made",
        "--json",
        *given,
    ]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    made = json.loads(done.stdout)
    found = made["settings"]
    assert (found["kind"], found["rank"], found["alpha"], found["targets"]) == ("dora", 2, 3, ["q_proj", "v_proj"])
    assert (found["top_layers"], found["micro_batch"], found["checkpointing"]) == (1, 2, True)
    assert found["seeds"] == {"data": 4, "template": 4, "init": 3, "batch": 4, "order": 5, "dropout": 4}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--seed-for", "init"], "'init' is not a list such as init=3,batch=4"),
        (["--seed-for", "inti=1"], "there is no seed 'inti'"),
        (["--adapter-kind", "loha"], "'loha' is not one of"),
    ],
)
def test_wrong_option_is_one_line(option: list[str], message: str, project: Project) -> None:
    """A malformed list, an unknown source and an unknown kind are named, and nothing is written."""
    done = CliRunner().invoke(cli, ["train", "films", *option])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
    assert not (project.root / "adapters").exists()


def test_rows_of_a_file_have_no_seed_for_data(project: Project, base: str) -> None:
    """Rows that are given as they are were drawn before: a seed for that is refused."""
    project.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows(8)))
    with pytest.raises(TrainError, match="seed 'data' goes with a task: the rows of a file were drawn when"):
        train_source("rows.jsonl", model=base, seeds={"data": 1})


def test_tensorboard_is_written_beside_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and validation accuracy are in TensorBoard's files, and the adapter is the same as without."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    given = {"epochs": 2, "validation": rows(4, seed=1)}
    tracked = train(model(), rows(16), out=tmp_path / "tracked", report_to="tensorboard", **given)
    assert files(tracked) == files(train(model(), rows(16), out=tmp_path / "plain", **given))
    found = events.EventAccumulator(str(tmp_path / "tracked.logs"))
    found.Reload()
    assert {"train/loss", "train/learning_rate", "train/validation_accuracy"} <= set(found.Tags()["scalars"])
    assert [event.value for event in found.Scalars("train/validation_accuracy")] == pytest.approx(tracked.validation)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tensorbord", r"cannot report to 'tensorbord': expected tensorboard, wandb, mlflow. Did you mean"),
        (["wandb"], r"reporting to wandb needs its package: pip install wandb"),
    ],
)
def test_tracker_that_is_not_there_is_named(
    names: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown tracker, and one that is not installed, stop before training."""
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match=message):
        train(model(), rows(8), out=tmp_path / "adapter", report_to=names)
    assert not list(tmp_path.iterdir())


def files_of(made: dict[str, Any]) -> bytes:
    return (Path(made["adapter"]) / "adapter_model.safetensors").read_bytes()
