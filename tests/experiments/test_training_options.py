"""An option that changes nothing beside the others is an error, in every verb, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from promptkit.adapters.card import read_card
from promptkit.cli import cli
from promptkit.errors import PromptkitError
from promptkit.experiments.grid import StudySettings, describe_scene, find_presets, load_settings
from promptkit.experiments.plan import CompareSettings
from tests.conftest import Project
from tests.helpers.training_fakes import model, saved

FEW = "it needs a few-shot method and -k of 1 or more"


@pytest.fixture
def base(project: Project, tmp_path: Path) -> str:
    """The folder of a small random model, in a user's project."""
    return saved(model(window=256), tmp_path / "base").name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare --methods zero-shot --rank 4", "--rank changes nothing here: it needs the method lora"),
        ("compare --methods zero-shot,few-shot --seeds 2", "--seeds changes nothing here: it needs the method lora"),
        ("compare --methods few-shot --epochs 2", "--epochs changes nothing here: it needs the method lora"),
        ("compare --methods few-shot --learning-rate 0.1", "--learning-rate changes nothing here"),
        ("compare --methods zero-shot --train-sizes 2,4", "--train-sizes changes nothing here"),
        ("compare --methods zero-shot --draws 3", f"--draws changes nothing here: {FEW}"),
        ("compare --methods lora --draws 3", f"--draws changes nothing here: {FEW}"),
        ("compare --methods few-shot -k 0 --order given", f"--order changes nothing here: {FEW}"),
        ("compare -k 0 --draws 2", f"--draws changes nothing here: {FEW}"),
        ("compare --methods zero-shot --selection random", f"--selection changes nothing here: {FEW}"),
        ("compare --methods zero-shot -k 4", "--shots changes nothing here: it needs a few-shot method"),
        (
            "compare --methods zero-shot --train-limit 4",
            "--train-limit changes nothing here: it needs demonstrations or",
        ),
        ("compare --methods zero-shot --overlong drop", f"--overlong changes nothing here: {FEW}"),
        ("compare --methods lora --train-sizes 2 --retrieval bm25", f"--retrieval changes nothing here: {FEW}"),
        ("compare --methods lora --seed 4294967295 --seeds 2", "the last LoRA run would have the seed 4294967296"),
        ("study --methods lora --seed 4294967295 --seeds 2", "the last LoRA run would have the seed 4294967296"),
        ("study --methods zero-shot --draws 3", f"--draws changes nothing here: {FEW}"),
        ("study --methods zero-shot --orders all", f"--orders changes nothing here: {FEW}"),
        ("study --methods zero-shot --demo-labels random", f"--demo-labels changes nothing here: {FEW}"),
        ("study --rationale shuffled", "--rationale changes nothing here: it needs the method few-shot-cot"),
        ("study --train-sizes 2", "--train-sizes changes nothing here: it needs the method lora"),
        ("study --seeds 2", "--seeds changes nothing here: it needs the method lora"),
        ("study --strategy thompson", "--strategy changes nothing here: it needs --budget"),
        ("study --model tiny --models tiny,base", "--model changes nothing here: it needs no --models beside it"),
        ("study --methods zero-shot-cot --calibrate batch", "--calibrate changes nothing here: it needs a method that"),
        ("score --selection random", f"--selection changes nothing here: {FEW}"),
        ("score --draws 2", f"--draws changes nothing here: {FEW}"),
        ("score --train-limit 2", "--train-limit changes nothing here"),
        ("score --overlong drop", f"--overlong changes nothing here: {FEW}"),
        ("show --order given", f"--order changes nothing here: {FEW}"),
        ("build --selection random", f"--selection changes nothing here: {FEW}"),
        ("build --as pairs --train-limit 3", "--train-limit changes nothing here"),
    ],
)
def test_options_without_an_effect_are_refused(words: str, message: str, base: str) -> None:
    """The option and what it needs are named, and no run folder is made."""
    verb, *rest = words.split()
    own = [] if verb == "build" or "--models" in rest else ["--model", base]
    done = CliRunner().invoke(cli, [verb, "films", "--data", "data", *own, *rest])
    assert isinstance(done.exception, PromptkitError), done.output
    assert message in str(done.exception)
    assert not Path("runs").exists()


GIVEN = "--adapter-kind dora --rank 2 --alpha 3 --dropout 0.1 --targets q_proj,v_proj --top-layers 1 --epochs 1"
MORE = "--batch-size 4 --micro-batch 2 --checkpointing --learning-rate 0.002"


@pytest.mark.parametrize("verb", ["compare", "study", "train"])
def test_every_verb_trains_with_the_same_options(verb: str, base: str) -> None:
    """Kind, rank, layers, batches and rate reach the adapter under the same names, in `compare` and `study` too."""
    words = [verb, "films", "--data", "data", "--model", base, "--device", "cpu", "--out", "made", *GIVEN.split()]
    words += [*MORE.split(), *(["--probes", "0"] if verb == "train" else ["--methods", "lora", "--seeds", "1"])]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for card in Path("made").rglob("promptkit.json"):
        made = read_card(card.parent).settings
        assert (made.kind, made.rank, made.alpha, made.dropout, made.targets) == (
            "dora",
            2,
            3,
            0.1,
            ("q_proj", "v_proj"),
        )
        assert (made.top_layers, made.batch_size, made.micro_batch, made.checkpointing) == (1, 4, 2, True)
        assert (made.learning_rate, made.seed) == (0.002, 0)
    assert [*Path("made").rglob("promptkit.json")]


@pytest.mark.parametrize("settings", [CompareSettings, StudySettings])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "lorra"}, "unknown kind 'lorra'; known: lora, rslora, dora, pissa, ia3"),
        ({"rank": 0}, "rank is 0; it must be 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be 0 or more, and below 1"),
        ({"batch_size": 0}, "batch size is 0; it must be 1 or more"),
        ({"kind": "ia3", "alpha": 4}, "an ia3 adapter has no rank, alpha or dropout"),
        ({"learning_rate": float("nan")}, "learning rate is nan; it must be a number above 0"),
    ],
)
def test_training_options_are_checked_first(settings: Any, given: dict[str, Any], message: str) -> None:
    """What a training would refuse is refused before anything is scored."""
    with pytest.raises(PromptkitError, match=message):
        settings(**given)
    assert settings().rank == 8
    assert settings(kind="ia3").rank is None


def test_presets_have_no_setting_without_an_effect(project: Project) -> None:
    """Those that ship are read; a file with an axis that its methods do not take is named."""
    for name in find_presets():
        load_settings(name)
    project.write("own.toml", 'methods = ["zero-shot"]\ndraws = 3\n')
    with pytest.raises(PromptkitError, match=r"own\.toml: --draws changes nothing here: it needs a few-shot method"):
        load_settings("own.toml")
    assert load_settings("lu2022", methods=("zero-shot",)).draws == 5  # what a preset says is not given here
    assert describe_scene(load_settings(None)).shows
