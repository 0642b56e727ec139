"""The training program of the embedded model: its rows, its tokenizer, its loop and what it ships."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from promptkit.models.recipe.corpus import (
    GENERATED,
    NEW_GROUPS,
    REAL,
    FamilyPool,
    family_pool,
    letters,
    load_pools,
    load_problems,
    polish,
)
from promptkit.models.recipe.document_packing import HEAVY, encode_document, normalise_weights, pack_row
from promptkit.models.recipe.documents import (
    ARBITRARY,
    END,
    FIRST,
    TEXT,
    Documents,
    Weighted,
    draw_classes,
    find_firsts,
    render,
)
from promptkit.models.recipe.label_names import choose_words
from promptkit.models.recipe.network import NetworkSize, build_network, start_circuits, warm_vectors
from promptkit.models.recipe.optimizer import orthogonalise
from promptkit.models.recipe.pretraining import Material, Plan, Trainer, TrainingStage, iterate_corpus, save_model
from promptkit.models.recipe.tokenizer import train_tokenizer
from promptkit.prompts.prompt import render_messages
from promptkit.templating.template import load_template

SMALL = NetworkSize(width=64, layers=1, hidden=64, window=128)
STAGES = (TrainingStage(0, 0.35, 0.2, 0), TrainingStage(2, 0.5, 0.2, 2))
PLAN = Plan(4, stages=STAGES, dense=(2, 16), short=(2, 32), long=(1, 64), warm_up=2, practice=1, compiled=False)


@pytest.fixture(scope="module")
def writer() -> Documents:
    """A writer over two small families and some word problems."""
    return Documents(
        [family_pool("gadgets", 0.6, 80, seed=0), family_pool("word-groups", 0.4, 80, seed=0)], _problems()
    )


@pytest.fixture(scope="module")
def material(writer: Documents) -> Material:
    """The writer's documents."""
    return Material(writer.practice, writer.problem, writer.classification)


@pytest.fixture(scope="module")
def tokenizer(material: Material) -> PreTrainedTokenizerFast:
    """A small tokenizer trained the way the shipped one is."""
    return train_tokenizer(iterate_corpus(material, 60, seed=0), ["negative"], window=128, vocabulary=500)


@settings(deadline=None, max_examples=60)
@given(text=st.text().filter(lambda text: "<|" not in text))
def test_any_text_comes_back_from_its_tokens(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Encoding and decoding give the text again, whatever it holds."""
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_and_newlines_are_tokens_of_their_own(tokenizer: PreTrainedTokenizerFast) -> None:
    """No token holds two digits, or a newline and something else."""
    tokens = [tokenizer.decode([i]) for i in tokenizer("\n\n 1024 of 99\n7. a\n")["input_ids"]]
    assert [token for token in tokens if "\n" in token] == ["\n"] * 4
    assert [token for token in tokens if any(c.isdigit() for c in token)] == list("1024997")


def test_a_label_word_is_one_token_with_its_space(tokenizer: PreTrainedTokenizerFast) -> None:
    """Emphasised words are learned whole."""
    assert len(tokenizer(" negative")["input_ids"]) == 1


def test_an_answer_is_encoded_alike_alone_and_after_its_prompt(
    writer: Documents, tokenizer: PreTrainedTokenizerFast
) -> None:
    """No token of a document spans two pieces."""
    for seed in range(30):
        document = writer.classification(random.Random(seed), 256)
        whole = tokenizer("".join(piece.text for piece in document))["input_ids"]
        assert whole == [i for piece in document for i in tokenizer(piece.text)["input_ids"]]


def test_chat_documents_are_what_the_chat_template_makes(writer: Documents, tokenizer: PreTrainedTokenizerFast) -> None:
    """Training rows in chat form equal the tokenizer's own rendering of the same turns.

    In them answers began as in plain prompts, with a space: what tiny was trained on.
    """
    pool = writer.pools[0]
    bound = load_template("sentiment/cot").bind(pool.task)
    *shown, query = pool.records[:3]
    solved = iter([bound.rationale(record) + bound.target(record) for record in shown])
    turns = [
        {"role": m.role, "content": next(solved) if m.role == "assistant" else m.content}
        for m in render_messages(bound, query, shown)
    ]
    answer = bound.rationale(query) + bound.target(query)
    expected = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}], tokenize=False)
    assert "".join(piece.text for piece in render(bound, [*shown, query], chat=True)) == expected


def test_only_a_heavy_row_is_scaled_down() -> None:
    """Weights stay up to a sum of 10; beyond, the sum becomes sqrt(10 * sum)."""
    light, heavy = np.full(8, 1.0, np.float32), np.full(40, 1.0, np.float32)
    assert normalise_weights(light).sum() == 8
    assert normalise_weights(heavy).sum() == pytest.approx((HEAVY * 40) ** 0.5)


def test_a_token_takes_the_weight_of_its_piece(tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights go by characters, also where text is longer in bytes."""
    document = [Weighted("é 漢字:", 0.0), Weighted(" negative", 2.0), Weighted(END, 0.3)]
    ids, weights = encode_document(tokenizer.backend_tokenizer, document, random.Random(0))
    assert weights[-2:] == [2.0, 0.3]
    assert not any(weights[:-2])
    assert len(ids) == len(weights)


def test_rows_are_full_and_their_first_token_weighs_nothing(
    material: Material, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Every row has the length asked for; nothing predicts its first token."""
    ids, weights = pack_row(tokenizer.backend_tokenizer, lambda rng: material.problem(rng, 64), random.Random(0), 64)
    assert ids.shape == weights.shape == (64,)
    assert weights[0] == 0
    assert weights.sum() > 0


def test_a_step_of_the_plan_has_its_batch(material: Material, tokenizer: PreTrainedTokenizerFast) -> None:
    """The batch of a step depends on the seed and the step alone; practice comes first, long rows in their turn."""
    assert material.batch(tokenizer, PLAN, 0).ids.shape == (2, 16)
    first, again = (material.batch(tokenizer, PLAN, 1) for _ in range(2))
    assert (first.ids == again.ids).all()
    assert first.ids.shape == (2, 32)
    assert material.batch(tokenizer, PLAN, 2).ids.shape == (1, 64)


def test_learning_rates_rise_stay_and_fall() -> None:
    """Linear warm-up, a constant stretch, then down to 3 %."""
    plan = Plan(100, warm_up=10, constant=0.5)
    assert [plan.rate(step) for step in (0, 9, 30)] == [0.1, 1.0, 1.0]
    assert plan.rate(75) == pytest.approx(1 - 0.97 / 2)
    assert plan.rate(100) == pytest.approx(0.03)


def test_an_interrupted_run_ends_with_the_same_weights(
    material: Material, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Four steps equal two steps, a checkpoint, and two more."""
    straight = _trainer(tokenizer)
    straight.train(material, _folder(tmp_path / "straight"))
    folder = _folder(tmp_path / "broken")
    _trainer(tokenizer).train(material, folder, stop_at=2)
    resumed = _trainer(tokenizer)
    resumed.load_checkpoint(folder)
    assert resumed.step == 2
    resumed.train(material, folder)
    for name, weight in straight.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name


def test_training_lowers_the_loss(material: Material, tokenizer: PreTrainedTokenizerFast) -> None:
    """The same batch costs less after a few steps on it."""
    trainer = _trainer(tokenizer)
    batch = material.batch(tokenizer, PLAN, 1)
    losses = [trainer.train_step(batch)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0] - 0.3


def test_what_is_saved_loads_in_plain_transformers(
    material: Material, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The folder holds a model and a tokenizer that transformers reads as they were."""
    trainer = _trainer(tokenizer)
    save_model(trainer.network, tokenizer, tmp_path)
    ids = torch.tensor([tokenizer("Text: good\nSentiment:")["input_ids"]])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.allclose(loaded(ids).logits, trainer.network.float()(ids).logits, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path)("\n12")["input_ids"] == tokenizer("\n12")["input_ids"]


def test_token_vectors_start_from_a_classifier(tokenizer: PreTrainedTokenizerFast) -> None:
    """The vectors have the network's shape and spread, and depend on the seed alone."""
    pools = [family_pool("word-groups", 1.0, 60, seed=0)]
    first, again = (_warm(tokenizer, pools) for _ in range(2))
    assert first.shape == build_network(tokenizer, SMALL).get_input_embeddings().weight.shape
    assert torch.equal(first, again)
    assert first.std().item() == pytest.approx(0.08, rel=1e-3)


def test_updates_of_muon_are_nearly_orthogonal() -> None:
    """All singular values of an update are near 1."""
    values = torch.linalg.svdvals(orthogonalise(torch.randn(24, 40, generator=torch.Generator().manual_seed(0))))
    assert 0.6 < values.min() <= values.max() < 1.3


def test_sentences_of_other_sets_tests_are_not_trained_on(tmp_path: Path) -> None:
    """A training sentence that stands in any test split, or in mpqa at all, is left out, case and marks aside."""
    for name in REAL:
        columns = ("text", "coarse_label", "NUM") if name == "trec" else ("sentence", "label", 0)
        _write_rows(tmp_path / name / "train.jsonl", columns, [f"Only in {name}.", "It shines !", "a fine idea"])
    _write_rows(tmp_path / "mr" / "test.jsonl", ("sentence", "label", 0), ["it shines"])
    _write_rows(tmp_path / "mpqa" / "train.jsonl", ("sentence", "label", 0), ["a fine idea"])
    for pool in load_pools(tmp_path, seed=0, generated=12)[: len(REAL)]:
        assert [record.fields["text"] for record in pool.records] == [f"Only in {pool.task.name}."]


def test_what_is_kept_out_is_not_in_the_mix() -> None:
    """Neither the held-out sets nor the reviews nor one generated family are among the sources."""
    assert not {"mpqa", "agnews", "trec-fine", "reviews", "intent"} & {*REAL, *GENERATED}
    assert not set(NEW_GROUPS) & set(family_pool("word-groups", 1.0, 40, seed=0).task.labels or ())


def test_letters_ignore_case_and_marks() -> None:
    """Two copies of a sentence have the same letters."""
    assert letters("It 's FINE !") == letters("it's fine")


def test_polishing_detokenizes() -> None:
    """Spaces before marks go, the first letter becomes a capital."""
    assert polish("it 's a film ( almost ) , is n't it ?") == "It's a film (almost), isn't it?"


def test_arbitrary_words_replace_every_label(writer: Documents) -> None:
    """The words of a set stand for the labels, each once, and few classes are shown at once."""
    task, records = draw_classes(random.Random(0), writer.pools[1], most=4)
    template = choose_words(writer.own[0], task, random.Random(0), arbitrary=True)
    assert task.labels is not None
    assert 2 <= len(task.labels) <= 4
    assert len(set(template.labels.values())) == len(task.labels)
    assert {record.label for record in records} <= set(range(len(task.labels)))


def test_every_answer_of_a_document_has_weight(writer: Documents) -> None:
    """Each demonstration's target is learned, not the last one's alone."""
    pool = writer.pools[0]
    bound = load_template("sentiment/plain").bind(pool.task)
    document = render(bound, pool.records[:4], chat=False)
    answers = [piece for piece in document if piece.weight > TEXT and piece.text != END]
    assert [piece.text for piece in answers] == [bound.target(record) for record in pool.records[:4]]


def test_what_nothing_tells_weighs_little(writer: Documents) -> None:
    """In practice the first answer of each label, or of each word labelled by chance, hardly counts."""
    for seed in range(6):
        answers = [piece for piece in writer.practice(random.Random(seed), 64) if piece.weight in (FIRST, ARBITRARY)]
        assert len({piece.text for piece in answers}) <= 2
        assert answers[0].weight == FIRST
        assert 1 < sum(piece.weight == FIRST for piece in answers) <= 8
    assert find_firsts("abacb") == {0, 1, 3}


def test_attention_starts_by_looking_up_what_followed_before(tokenizer: PreTrainedTokenizerFast) -> None:
    """At a token that stood in the text before, the untrained second layer looks more at what came after it."""
    torch.manual_seed(0)
    network = build_network(tokenizer, NetworkSize(layers=3, attention="eager"))
    start_circuits(network, seed=0)
    ids = torch.randperm(400)[:12].repeat(2)[None] + 50
    with torch.no_grad():
        first, second, _ = network(ids, output_attentions=True).attentions
    assert first[0, 0, 5:].argmax(-1).tolist() == list(range(4, 23))  # one token back
    assert second[0, 0, range(13, 24), range(2, 13)].mean() > 2 * second[0, 0, 13:, :13].mean()


def _warm(tokenizer: PreTrainedTokenizerFast, pools: list[FamilyPool]) -> torch.Tensor:
    torch.manual_seed(0)
    return warm_vectors(tokenizer, pools, 64, seed=1, epochs=1)


def _problems() -> FamilyPool:
    return load_problems(80, seed=0)


def _trainer(tokenizer: PreTrainedTokenizerFast) -> Trainer:
    torch.manual_seed(0)
    return Trainer(build_network(tokenizer, SMALL), tokenizer, PLAN, "cpu")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _write_rows(path: Path, columns: tuple[str, str, Any], texts: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    text, label, value = columns
    path.write_text("".join(f"{json.dumps({text: sentence, label: value})}\n" for sentence in texts))
