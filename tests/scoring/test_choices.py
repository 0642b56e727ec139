"""Choices that nothing tells apart are an error wherever they are scored: the first would always win."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

import promptkit
from promptkit.cli import cli
from promptkit.errors import DataError, PromptkitError
from promptkit.models import Model
from promptkit.scoring import find_faults, score
from tests.conftest import TASK, TEMPLATE, Project

WORDS = ["<unk>", "<s>", "</s>", "good", "bad", "so", "it", "was", "a", "film", "text", "sentiment", ":"]
ROW = {"prompt": "it was so", "choices": [" good", " bad"]}


def words_model(unknown: str | None = "<unk>") -> Model:
    """A random model that knows a few words, in lower case; without `unknown`, other words are no tokens at all."""
    ids = {word: number for number, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=unknown) if unknown else models.BPE(ids, []))
    if unknown:
        backend.pre_tokenizer, backend.normalizer = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    else:
        backend.add_tokens(WORDS[3:])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=unknown, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
    )
    return Model.of("words", AutoModelForCausalLM.from_config(config).eval(), tokenizer)


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "choices": [" soup", " bread"]},
        {**ROW, "choices": [" good", " bad", " Good"]},
        {**ROW, "prompt": "it was:", "choices": [" good", "good"]},
        {**ROW, "prompt": "", "choices": ["soup", "bread"]},
        {**ROW, "choices": [" 好", " 坏"], "content_free": ["film"]},
        {**ROW, "choices": [" soup", " bread"], "generation": {"stop": ["."], "max_tokens": 2, "answer": None}},
    ],
)
def test_choices_of_the_same_tokens_are_an_error(row: dict[str, Any]) -> None:
    """Both choices are named, with what to do, whatever makes them alike; rows around it have nothing to do with it."""
    with pytest.raises(DataError) as caught:
        score(words_model(), [ROW, {**row, "id": "b"}])
    first, last = row["choices"][0], row["choices"][-1]
    assert str(caught.value) == (
        f"prompt 'b': choices {first!r} and {last!r} are the same tokens to the tokenizer of model 'words', which does "
        "not know some of their characters or does not tell them apart; write others, or use another model"
    )
    assert list(find_faults(words_model(), [ROW, row])) == [1]
    assert score(words_model(), [ROW]).logprobs


def test_a_choice_without_a_token_is_an_error() -> None:
    """A tokenizer may leave out what it does not know; the end of the prompt would be scored in its place."""
    with pytest.raises(DataError, match=r"^prompt '0': choice '好' has no token of its own to the tokenizer of model"):
        score(words_model(unknown=None), [{"prompt": "itwas", "choices": ["good", "好"]}])


@pytest.mark.parametrize("choices", [[" good", " bad", " good"], [" good", " good"]])
def test_a_choice_that_is_there_twice_is_an_error(choices: list[str]) -> None:
    """The row and the choice are named."""
    with pytest.raises(DataError, match=r"^row 2 \(id 'b'\): choice ' good' is there 2 times; nothing tells them"):
        score(words_model(), [ROW, {"id": "b", "prompt": "it", "choices": choices}])


def test_choices_that_are_read_as_one_answer_are_an_error() -> None:
    """Where the model writes and an answer is read, choices that are equal as numbers are one."""
    row = {**ROW, "choices": ["2", "3", "2.0"], "generation": {"stop": [], "max_tokens": 2, "answer": "(.*)"}}
    with pytest.raises(DataError, match=r"row 1 .*: choices '2' and '2.0' are one answer; nothing tells them apart"):
        score(words_model(), [row])


@pytest.fixture
def folder(project: Project) -> str:
    """The model as a folder, in a project whose labels it does not know."""
    network, tokenizer = words_model().network, words_model().tokenizer
    network.save_pretrained("words")
    tokenizer.save_pretrained("words")
    project.write("templates/films/good.jinja", '{% set labels = {"negative": "bad", "positive": "good"} %}' + TEMPLATE)
    return "words"


def test_rows_of_a_file_are_named_by_line(folder: str, project: Project) -> None:
    """`score FILE` says where the row stands, also for a row beyond the window."""
    for bad, said in (
        ({**ROW, "choices": [" soup", " bread"]}, "choices ' soup' and ' bread' are the same tokens to the tokenizer"),
        ({**ROW, "choices": [" good", " good"]}, "choice ' good' is there 2 times"),
        ({**ROW, "prompt": "it was " * 100}, "takes 201 tokens, but the window"),
    ):
        project.write("rows.jsonl", f"{json.dumps(ROW)}\n\n{json.dumps(bad)}\n")
        with pytest.raises(PromptkitError) as caught:
            cli(["score", "rows.jsonl", "--model", folder], standalone_mode=False)
        assert str(caught.value).startswith("rows.jsonl:3: ")
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        "score films",
        "score films --calibrate contextual",
        "compare films --methods zero-shot",
        "study films -k 1 --draws 1 --orders 1",
        "train films --template films/plain --epochs 1",
    ],
)
def test_every_verb_names_the_template(command: str, folder: str, project: Project) -> None:
    """Labels that the model does not know are one line that names the template, before anything is trained."""
    project.write("data/validation.jsonl", (project.root / "data/test.jsonl").read_bytes())
    verb, task, *options = command.split()
    more = [] if "--template" in options else ["--template", "films/plain"]
    with pytest.raises(PromptkitError) as caught:
        cli([verb, task, "--data", "data", "--model", folder, *options, *more], standalone_mode=False)
    line = str(caught.value)
    assert "template 'films/plain': choices ' negative' and ' positive' are the same tokens" in line
    assert line.endswith("give the labels other words in the template ({% set labels = … %}), or use another model")


def test_words_that_the_model_knows_are_the_way_out(folder: str, project: Project) -> None:
    """Other verbalizers are scored."""
    result = promptkit.compare("films", data="data", model=folder, methods=("zero-shot",), templates=("films/good",))
    assert result["cells"][0]["n"] == 6


def test_validation_prompts_are_checked_before_training(project: Project) -> None:
    """The library's own `train` refuses validation prompts that could not be judged, before the first step."""
    pairs = [{"prompt": "it was", "completion": " good"}]
    steps: list[int] = []
    with pytest.raises(PromptkitError, match="choices ' soup' and ' bread' are the same tokens"):
        promptkit.train(
            words_model(),
            pairs,
            validation=[{"prompt": "it was", "choices": [" soup", " bread"], "label": 0}],
            progress=lambda done, _: steps.append(done),
        )
    assert steps == []
    assert not Path("adapters").exists()


def test_choices_of_records_are_checked_as_well(folder: str, project: Project) -> None:
    """Records with choices of their own are named by their id."""
    task = TASK.replace('labels = ["negative", "positive"]\n', "").replace("label =", 'choices = "choices"\nlabel =')
    project.write("tasks/films.toml", task)
    project.write(
        "templates/films/plain.jinja",
        "{% macro input(text, choices) %}{{ text }}:{% endmacro %}{% macro target(label) %} {{ label }}{% endmacro %}",
    )
    rows = [
        {"id": "a", "sentence": "it was", "choices": ["good", "bad"], "label": 0},
        {"id": "b", "sentence": "it was", "choices": ["soup", "bread"], "label": 0},
    ]
    project.write("data/test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match="prompt 'b', template 'films/plain': choices ' soup' and ' bread' are the same"
    ):
        cli(["score", "films", "--data", "data", "--model", folder], standalone_mode=False)
