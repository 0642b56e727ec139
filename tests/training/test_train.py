"""Training learns the completions and nothing else, by the seed alone, and leaves no trace but the adapter."""

from __future__ import annotations

import os
import random
from inspect import signature
from pathlib import Path
from typing import Any

import datasets
import numpy
import pytest
import torch

from promptkit.adapters.card import BATCH_SIZE, EPOCHS, read_card
from promptkit.adapters.loading import load_model
from promptkit.cli import cli
from promptkit.errors import DataError, TrainError
from promptkit.experiments.grid import StudySettings
from promptkit.experiments.plan import CompareSettings
from promptkit.prompts.pair import Pair
from promptkit.scoring import Prediction, Table, score
from promptkit.training import runner, train
from promptkit.training import validation as judge
from promptkit.training.batches import collate, encode_pairs, read_pairs
from promptkit.training.lora import default_learning_rate, wrap
from promptkit.training.loss import completion_logits, completion_loss
from tests.helpers.training_fakes import CHOICES, SHAPES, files, model, rows, saved, settings, tokenizer, weights

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where an adapter is to go."""
    return tmp_path / "adapter"


def batch_of(texts: list[tuple[str, str]]) -> Any:
    pairs = [{"prompt": prompt, "completion": completion} for prompt, completion in texts]
    return collate(encode_pairs(model(), read_pairs(pairs)))


BATCH = [("Text: the soup was good. Sentiment:", " positive"), ("Text: cold", " yes no maybe, it is awful")]


@pytest.mark.parametrize("kind", SHAPES)
def test_logits_where_there_is_loss_equal_the_full_loss(kind: str) -> None:
    """Skipping the head elsewhere, and padding, change neither the loss nor the adapter's gradients."""
    network = wrap(model(kind), settings())
    completion_loss(network, batch_of(BATCH)).backward()
    kept = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    network.zero_grad()
    for text in BATCH:
        (row,) = encode_pairs(model(), read_pairs([{"prompt": text[0], "completion": text[1]}]))
        logits = network(torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[row.start :])) / len(BATCH)
        loss.backward()
    assert len(kept) > 4
    for name, weight in network.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(kept[name], weight.grad, atol=1e-6, rtol=1e-5)


def test_network_without_logits_to_keep_gives_the_same() -> None:
    """A network from elsewhere, whose forward may not take the mask, computes all logits and has the same loss."""

    class Elsewhere(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model().network

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.inner(input_ids, attention_mask)

    batch = batch_of(BATCH)
    expected = completion_logits(model().network, batch)
    assert expected.shape == (len(batch["targets"]), len(tokenizer()))
    torch.testing.assert_close(completion_logits(Elsewhere(), batch), expected)


def test_long_completion_weighs_as_much_as_a_short_one() -> None:
    """The loss of a batch is the mean over its pairs, however many tokens each completion has."""
    network = model().network
    means = []
    for batch in (batch_of([text]) for text in BATCH):
        means.append(torch.nn.functional.cross_entropy(completion_logits(network, batch), batch["targets"]))
    torch.testing.assert_close(completion_loss(network, batch_of(BATCH)), sum(means) / len(means))


@pytest.mark.parametrize("kind", SHAPES)
def test_all_linear_layers_get_an_adapter(kind: str, out: Path) -> None:
    """`all-linear` means every linear layer but the head, on each architecture, and each is trained."""
    trained = weights(train(model(kind), rows(8), out=out))
    ups = {name: weight for name, weight in trained.items() if "lora_B" in name}
    layers = [
        module
        for name, module in model(kind).network.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and "head" not in name and "embed_out" not in name
    ]
    assert len(ups) == len(layers) > 7
    assert all(weight.abs().max() > 0 for weight in ups.values())


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Every file of the adapter is the same, whatever the global random state was; another seed changes it."""
    pairs, made = rows(40), []
    for number, seed in enumerate([7, 7, 8]):
        torch.manual_seed(number)
        random.seed(number)
        made.append(train(model(), pairs, seed=seed, epochs=2, dropout=0.1, out=tmp_path / str(number)))
    assert files(made[0]) == files(made[1])
    assert files(made[0]) != files(made[2])


def test_seed_reaches_the_first_weights() -> None:
    """The matrices a fresh adapter starts from follow the seed."""

    def first(seed: int) -> torch.Tensor:
        with runner._seeded(seed):
            network = wrap(model(), settings())
        return next(weight for name, weight in network.named_parameters() if "lora_A" in name)

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


def test_seed_reaches_dropout_and_batches(tmp_path: Path) -> None:
    """Without adapter dropout the weights differ from those with it; both follow the seed."""
    pairs = rows(20)
    plain = train(model(), pairs, out=tmp_path / "0")
    dropped = [train(model(), pairs, dropout=0.5, out=tmp_path / name) for name in ("1", "2")]
    assert files(dropped[0]) == files(dropped[1])
    assert files(dropped[0])["adapter_model.safetensors"] != files(plain)["adapter_model.safetensors"]


def test_model_is_left_as_it_was(out: Path) -> None:
    """Training changes neither the caller's weights nor their flags, nor the configuration or mode."""
    base = model()
    before = {name: weight.clone() for name, weight in base.network.state_dict().items()}
    config, modules = base.network.config.to_dict(), [type(module) for module in base.network.modules()]
    train(base, rows(16), learning_rate=0.1, out=out)
    after = base.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert base.network.config.to_dict() == config
    assert [type(module) for module in base.network.modules()] == modules
    assert all(weight.requires_grad and weight.grad is None for weight in base.network.parameters())
    assert not base.network.training


def test_frozen_weights_are_not_copied() -> None:
    """The network in training shares the memory of the base model's weights."""
    base = model()
    wrapped = wrap(base, settings()).get_base_model()
    theirs = {weight.data_ptr() for weight in base.network.parameters()}
    assert wrapped.get_input_embeddings().weight.data_ptr() in theirs
    assert wrapped.model.layers[0].self_attn.q_proj.base_layer.weight.data_ptr() in theirs


def test_global_state_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Random states, environment, threads and working directory stay; nothing is printed."""

    def state() -> list[Any]:
        randomness = [random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
        deterministic = torch.are_deterministic_algorithms_enabled()
        return [randomness, dict(os.environ), torch.get_num_threads(), torch.get_default_dtype(), deterministic]

    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    before = state()
    train(model(), rows(16), out=tmp_path / "adapter")
    assert state() == before
    assert not list(empty.iterdir())
    assert not list(tmp_path.glob(".*"))
    assert capfd.readouterr() == ("", "")


def test_a_simple_rule_is_learned(tmp_path: Path) -> None:
    """A random network comes to answer new records from the word that decides, far above chance."""
    base, fresh = saved(model(hidden_size=64), tmp_path / "base"), rows(100, seed=1)
    adapter = train(base, rows(300), epochs=6, out=tmp_path / "adapter")
    assert accuracy(score(load_model(str(adapter.path)), fresh)) > 0.9 > 0.8 > accuracy(score(base, fresh))
    assert adapter.losses[-1] < adapter.losses[0] / 2


def test_a_handful_of_rows_can_be_learned(tmp_path: Path) -> None:
    """Four pairs, fewer than a batch, are learned when the epochs are raised to make up for it."""
    base, few = saved(model(hidden_size=64), tmp_path / "base"), rows(4)
    adapter = train(base, few, epochs=30, out=tmp_path / "adapter")
    assert accuracy(score(load_model(str(adapter.path)), few)) == 1


def test_a_single_step_teaches(out: Path) -> None:
    """One step has the whole learning rate: warming up would leave it none."""
    adapter = train(model(), rows(4), epochs=1, out=out)
    assert max(weight.abs().max() for name, weight in weights(adapter).items() if "lora_B" in name) > 0


def test_validation_scores_every_epoch(out: Path) -> None:
    """The label accuracy of promptkit's scorer is taken per epoch, and its tokens are counted."""
    adapter = train(model(), rows(32), validation=rows(20, seed=2), epochs=2, out=out)
    assert adapter.epochs == len(adapter.validation) == len(adapter.losses) == 2
    assert adapter.validation[adapter.best_epoch - 1] == max(adapter.validation)
    assert adapter.validation_tokens > 0


def scripted(monkeypatch: pytest.MonkeyPatch, *correct: int) -> list[dict[str, torch.Tensor]]:
    """Let the scorer find `correct` of ten answers right, epoch by epoch; return the weights it was shown."""
    seen: list[dict[str, torch.Tensor]] = []

    def fake(shown: Any, prompts: Any, *, chat: bool) -> Table:
        right = correct[len(seen)]
        ups = {name: weight.detach().clone() for name, weight in shown.network.named_parameters() if "lora" in name}
        seen.append(ups)
        return Table(tuple(Prediction(str(n), (), int(n < right), 1) for n in range(10)), tokens_computed=5)

    monkeypatch.setattr(judge, "score", fake)
    return seen


@pytest.mark.parametrize(
    ("correct", "patience", "run", "best"),
    [((5, 8, 8, 7), 2, 4, 2), ((5, 4, 3, 9), 2, 3, 1), ((5, 6, 7, 8), 1, 4, 4), ((9, 1, 1, 1), 3, 4, 1)],
    ids=["earlier-of-equals", "stops", "last", "first"],
)
def test_best_epoch_is_kept(
    monkeypatch: pytest.MonkeyPatch, out: Path, correct: tuple[int, ...], patience: int, run: int, best: int
) -> None:
    """Training ends after `patience` epochs without a new best, and the best epoch's weights are saved."""
    seen = scripted(monkeypatch, *correct)
    adapter = train(model(), rows(16), validation=rows(2), epochs=4, patience=patience, out=out)
    assert (adapter.epochs, adapter.best_epoch) == (run, best)
    assert adapter.validation == tuple(right / 10 for right in correct[:run])
    assert adapter.validation_tokens == 5 * run
    shown = {name.replace(".default", ""): weight for name, weight in seen[best - 1].items()}
    assert shown.keys() == weights(adapter).keys()
    assert all(torch.equal(weight, shown[name]) for name, weight in weights(adapter).items())


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 1), ("macro_f1", 2)])
def test_best_epoch_goes_by_the_metric(monkeypatch: pytest.MonkeyPatch, out: Path, metric: str, best: int) -> None:
    """Always the frequent label is most accurate, and the worst by macro-F1; the values are those of the metric."""
    gold = [0] * 9 + [1]
    said = iter([[0] * 10, [1, 1] + [0] * 7 + [1]])

    def fake(shown: Any, prompts: Any, *, chat: bool) -> Table:
        return Table(tuple(Prediction(str(n), (), *pair) for n, pair in enumerate(zip(next(said), gold, strict=True))))

    monkeypatch.setattr(judge, "score", fake)
    adapter = train(model(), rows(16), validation=rows(2), epochs=2, metric=metric, out=out)
    assert (adapter.best_epoch, adapter.metric, read_card(out).settings.metric) == (best, metric, metric)
    wanted = {"accuracy": (0.9, 0.8), "macro_f1": (9 / 19, 7 / 16 + 1 / 4)}[metric]
    assert adapter.validation == pytest.approx(wanted)


def test_metric_over_labels_needs_labels(out: Path) -> None:
    """Free text, and records with choices of their own, have no labels to average over."""
    own = [rows(1)[0], {**rows(1)[0], "choices": [" a", " b", " c"]}]
    free = [
        {
            "prompt": "a",
            "completion": " b",
            "choices": [],
            "label": "b",
            "generation": {"stop": [], "max_tokens": 2, "answer": "(.*)"},
        }
    ]
    for validation in (own, free):
        with pytest.raises(TrainError, match="do not have the same labels, which macro_f1 averages over: take accur"):
            train(model(), rows(4), validation=validation, metric="macro_f1", out=out)


def test_validation_does_not_disturb_training(tmp_path: Path) -> None:
    """Judged or not, the same seed leads to the same weights, dropout included."""
    plain = train(model(), rows(16), dropout=0.1, epochs=2, out=tmp_path / "plain")
    judged = train(model(), rows(16), dropout=0.1, epochs=2, validation=rows(4, seed=3), out=tmp_path / "judged")
    if judged.best_epoch == 2:
        assert all(torch.equal(weight, weights(judged)[name]) for name, weight in weights(plain).items())
    assert judged.losses == plain.losses


def test_tokens_are_counted_without_padding(out: Path) -> None:
    """Tokens trained are those the network read, all but each row's last; targets are the completions'."""
    pairs = rows(10)
    adapter = train(model(), pairs, epochs=2, out=out)
    encoded = encode_pairs(model(), read_pairs(pairs))
    assert adapter.tokens_trained == 2 * sum(len(row.ids) - 1 for row in encoded)
    assert adapter.targets_trained == 2 * 10
    assert (adapter.rows, adapter.epochs, adapter.validation_tokens, adapter.spanning) == (10, 2, 0, 0)


def test_progress_counts_steps(out: Path) -> None:
    """The progress function hears every step, and of how many."""
    steps: list[tuple[int, int]] = []
    train(model(), rows(20), batch_size=8, epochs=2, out=out, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 6) for done in range(1, 7)]


def test_pairs_come_in_any_form(tmp_path: Path) -> None:
    """Pairs, plain rows, a generator of them and a data set train the same adapter."""
    plain = rows(16)
    objects = [Pair(row["id"], row["prompt"], row["completion"], row["label"], choices=tuple(CHOICES)) for row in plain]
    forms = [plain, objects, iter(plain), datasets.Dataset.from_list(plain)]
    made = [files(train(model(), form, out=tmp_path / str(number))) for number, form in enumerate(forms)]
    assert all(each == made[0] for each in made)


def test_chat_trains_the_rendered_turns(out: Path) -> None:
    """With chat, what is trained is the template's rendering, and validation is scored the same way."""
    turns = [{"role": "user", "content": "the soup was good"}]
    chat = [{**row, "messages": turns} for row in rows(8)]
    adapter = train(model(), chat, chat=True, validation=chat, epochs=1, out=out)
    rendered = [f"<s>user\nthe soup was good<end>\n<s>assistant\n{row['completion'].strip()}" for row in chat]
    assert adapter.tokens_trained == sum(len(ids) - 1 for ids in tokenizer()(rendered)["input_ids"])


def test_bfloat16_model_can_be_trained(out: Path) -> None:
    """The frozen weights stay in bfloat16, the adapter is float32 and moves."""
    base = model()
    base.network.to(torch.bfloat16)
    trained = weights(train(base, rows(16), out=out))
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert all(weight.abs().max() > 0 for weight in trained.values())


def test_learning_rate_follows_the_width() -> None:
    """Narrow networks learn with a larger rate; the rule's value at 2000 is 5e-4."""
    assert default_learning_rate(model(hidden_size=2000, num_hidden_layers=0).network) == pytest.approx(5e-4)
    assert default_learning_rate(model().network) > 5e-3


def test_every_way_to_train_has_the_same_defaults() -> None:
    """The library, a comparison, a study and the three verbs pass over the rows as often, with batches of one size."""
    ways = [signature(train).parameters["epochs"].default, CompareSettings().epochs, StudySettings().epochs]
    options = [
        {option.name: option.default for option in cli.commands[verb].params} for verb in ("train", "compare", "study")
    ]
    assert {*ways, *(each["epochs"] for each in options)} == {EPOCHS}
    assert {signature(train).parameters["batch_size"].default, options[0]["batch_size"]} == {BATCH_SIZE}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "training: rank is 0: input should be greater than or equal to 1"),
        ({"learning_rate": float("nan")}, "training: learning_rate is nan: input should be a finite number"),
        ({"epochs": 0}, "training: epochs is 0"),
        ({"dropout": 1.0}, "training: dropout is 1.0: input should be less than 1"),
        ({"seed": -1}, "training: seed is -1"),
        ({"validation": []}, "validation has no prompts"),
        ({"validation": [{"prompt": "a", "choices": [" b"]}]}, "validation prompt '0' has no label"),
    ],
)
def test_setting_out_of_range_is_named(changes: dict[str, Any], message: str, out: Path) -> None:
    """A wrong setting is one line that names it, what was found and what is allowed; nothing is written."""
    with pytest.raises(TrainError, match=message):
        train(model(), rows(8), out=out, **changes)
    assert not out.exists()


def test_malformed_row_stops_before_training(out: Path) -> None:
    """A row that is no pair is named, and nothing is written."""
    with pytest.raises(DataError, match="training row 9: 'completion' is missing, found prompt"):
        train(model(), [*rows(8), {"prompt": "a"}], out=out)
    assert not out.exists()


def test_adapter_on_an_adapter_is_refused(out: Path) -> None:
    """A model that has an adapter already is not trained again by accident."""
    from dataclasses import replace

    base = model()
    with pytest.raises(TrainError, match="model 'fake' has an adapter already: train from the base model"):
        train(replace(base, network=wrap(base, settings())), rows(8), out=out)


def test_loss_that_is_not_finite_is_an_error(out: Path) -> None:
    """A run that diverges says so in its first epoch, and saves nothing."""
    base = model()
    torch.nn.init.constant_(base.network.model.norm.weight, float("nan"))
    with pytest.raises(TrainError, match=r"the loss of epoch 1 is nan: a learning rate below .* may help"):
        train(base, rows(8), out=out)
    assert not out.exists()


def accuracy(table: Table) -> float:
    return sum(each.predicted == each.label for each in table.predictions) / len(table.predictions)
