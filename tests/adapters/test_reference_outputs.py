"""An adapter's probes are asked again where something has changed, and a label that changed is not passed over."""

from __future__ import annotations

import copy
import json
import random
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from promptkit.adapters import loading as adapters
from promptkit.adapters.card import CARD, Adapter, read_card
from promptkit.adapters.loading import load_model, put_adapter
from promptkit.adapters.reference_outputs import (
    ReferenceOutput,
    ReferenceOutputs,
    ask_again,
    choose_probes,
    hash_tokenizer,
    record_reference_outputs,
)
from promptkit.errors import ModelError, PromptkitWarning, TrainError, WindowError
from promptkit.models import Model
from promptkit.models.checkpoint import ADAPTER_WEIGHTS as WEIGHTS
from promptkit.models.location import fingerprint
from promptkit.prompts.pair import Pair
from promptkit.prompts.prompt import Message
from promptkit.scoring import score
from promptkit.training import train
from tests.helpers.training_fakes import model, rows, saved, tokenizer

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CHOICES = (" negative", " positive")


def pair(number: int, label: int, **changes: Any) -> Pair:
    """A labelled row of its own text."""
    text = f"Text: {['bad', 'good'][label]} soup {number}. Sentiment:"
    return Pair(**{"id": str(number), "prompt": text, "completion": CHOICES[label], "label": label,
                   "choices": CHOICES, **changes})  # fmt: skip


PAIRS = [pair(number, number % 2) for number in range(16)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A base model in a folder of its own."""
    return saved(model(), tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def trained(base: Model, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """An adapter that has learned its rows."""
    return train(base, PAIRS, learning_rate=0.02, epochs=6, out=tmp_path_factory.mktemp("adapters") / "films")


@pytest.fixture
def adapter(trained: Adapter, tmp_path: Path) -> Path:
    """A copy of the adapter, to be changed."""
    return Path(shutil.copytree(trained.path, tmp_path / "films"))


def edit(folder: Path, **changes: Any) -> None:
    """Change keys of an adapter's card."""
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


def spoil(folder: Path) -> None:
    """Turn every weight of the adapter around, so that it says the opposite."""
    path = folder / "adapter_model.safetensors"
    save_file({name: -2 * weight if "lora_B" in name else weight for name, weight in load_file(path).items()}, path)


def test_probes_are_spread_over_labels_in_any_order() -> None:
    """Each label has as many as the other, whatever their shares; no text comes twice; the order does not matter."""
    rows = [pair(number, int(number >= 90)) for number in range(100)]
    chosen = choose_probes(rows * 2, 12)
    assert Counter(each.completion for each in chosen) == {" negative": 6, " positive": 6}
    assert len({each.prompt for each in chosen}) == 12
    random.Random(0).shuffle(rows)
    assert choose_probes(rows, 12) == chosen
    assert len(choose_probes(rows[:3], 12)) == 3


def test_probes_are_spread_over_templates_and_tasks() -> None:
    """Rows of several templates and tasks are all asked, rare ones too; free texts count as one label."""
    rows = [pair(number, 0, template="often") for number in range(50)]
    rows += [
        pair(50, 0, template="seldom"),
        pair(51, 0, task="other"),
        pair(52, 0, choices=()),
        pair(53, 1, choices=()),
    ]
    chosen = choose_probes(rows, 5)
    assert {each.template for each in chosen} == {"often", "seldom", ""}
    assert {each.id for each in chosen} > {"50", "51"}
    assert len({each.id for each in chosen} & {"52", "53"}) == 1


def test_card_holds_what_the_adapter_says(trained: Adapter) -> None:
    """The card's probes can be scored again by anyone, and give the same scores; label words and hashes are there."""
    card = read_card(trained.path)
    loaded = load_model(str(trained.path), device="cpu")
    assert card.probes
    assert (card.probes.dtype, card.probes.device, len(card.probes.rows)) == ("float32", "cpu", 16)
    asked = [{"prompt": probe.prompt, "choices": list(probe.choices)} for probe in card.probes.rows]
    for probe, logprobs in zip(card.probes.rows, score(loaded, asked).logprobs, strict=True):
        assert probe.logprobs == pytest.approx(logprobs, abs=1e-4)
    assert card.tokenizer_hash == hash_tokenizer(loaded.tokenizer)
    assert card.labels == CHOICES


def test_nothing_is_asked_where_nothing_changed(trained: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files, versions, number format and device: loading scores nothing."""
    monkeypatch.setattr(adapters, "ask_again", lambda *_: pytest.fail("asked"))
    load_model(str(trained.path), device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"versions": {"transformers": "4.0.0"}},
        {"tokenizer_hash": "other"},
        {"files_hash": "other"},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
def test_a_change_that_changes_no_answer_is_silent(adapter: Path, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another version, tokenizer, format or other files the probes are asked; if all agree, nothing is said."""
    verdicts = []
    monkeypatch.setattr(adapters, "ask_again", lambda *given: verdicts.append(ask_again(*given)) or verdicts[-1])
    if "dtype" not in change:
        edit(adapter, **change)
    load_model(str(adapter), device="cpu", dtype=change.get("dtype", "float32"))
    assert [(verdict.count, verdict.flips) for verdict in verdicts] == [(16, ())]


def test_a_changed_label_is_refused(adapter: Path) -> None:
    """Weights that say something else are an error with the count, an example, what changed and a way out."""
    spoil(adapter)
    with pytest.raises(ModelError, match=r"films: \d+ of its 16 probe rows changed their answer, as row '\d+' from"):
        load_model(str(adapter), device="cpu")
    with pytest.raises(ModelError, match=r"other files; restore these, train again, or take it as it is with"):
        load_model(str(adapter), device="cpu")


def test_a_changed_label_can_be_taken(adapter: Path) -> None:
    """`on_flip` makes it a warning, or asks nothing; another word for it is an error."""
    spoil(adapter)
    with pytest.warns(PromptkitWarning, match="of its 16 probe rows changed their answer"):
        load_model(str(adapter), device="cpu", on_flip="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PromptkitWarning)
        load_model(str(adapter), device="cpu", on_flip="ignore")
    with pytest.raises(ModelError, match=r"on_flip is 'warm': expected error, warn, ignore\. Did you mean 'warn'\?"):
        load_model(str(adapter), device="cpu", on_flip="warm")


def test_another_number_format_is_a_warning(adapter: Path) -> None:
    """What bfloat16 rounds to another label is said, with the counts, and is no error."""
    spoil(adapter)
    with pytest.warns(PromptkitWarning, match=r"changed their answer.*dtype float32 -> bfloat16"):
        load_model(str(adapter), dtype="bfloat16", device="cpu")


def test_scores_that_moved_are_a_warning(adapter: Path) -> None:
    """Where every label is the same but scores moved by more than rounding, that is said."""
    card = read_card(adapter)
    assert card.probes
    moved = [{**probe.model_dump(), "logprobs": [nats - 1 for nats in probe.logprobs]} for probe in card.probes.rows]
    edit(adapter, probes={**card.probes.model_dump(), "rows": moved}, files_hash="other")
    with pytest.warns(PromptkitWarning, match=r"none of its 16 probe rows changed.* score is 1 nats\)"):
        load_model(str(adapter), device="cpu")


def test_rounding_flips_no_label(base: Model) -> None:
    """A choice that led by less than rounding has not changed its label; one that led by more has."""
    network = copy.deepcopy(base.network)
    for weight in network.parameters():  # so that all tokens are as likely
        weight.data.zero_()
    even = replace(base, network=network)
    twice = ReferenceOutput(id="a", prompt="the soup", choices=("1", "2"), logprobs=(0.0, 0.0))
    first = record_reference_outputs(even, [Pair("a", "the soup", "1", 0, choices=twice.choices)])
    assert first
    [nats, _] = first.rows[0].logprobs

    def flips(lead: float) -> int:
        probe = twice.model_copy(update={"logprobs": (nats, nats + lead)})
        return len(ask_again(even, ReferenceOutputs(dtype="float32", device="cpu", rows=(probe,))).flips)

    assert [flips(lead) for lead in (0.0, 5e-4, 0.01)] == [0, 0, 1]


def test_free_text_is_compared_by_its_score(base: Model) -> None:
    """A row without choices, or with a chain of thought, has its completion scored; it changed if that moved far."""
    rows = [Pair("a", "the soup", " was good and", None), Pair("b", "x", " so positive", 1, choices=CHOICES)]
    probes = record_reference_outputs(base, rows)
    assert probes
    assert sorted(probe.choices for probe in probes.rows) == [(" so positive",), (" was good and",)]
    assert ask_again(base, probes).flips == ()
    other = ask_again(model(seed=2, initializer_range=1.0), probes)
    assert len(other.flips) == 2
    assert "whose text moved by" in other.flips[0]


def test_chat_probes_are_asked_as_chat(base: Model) -> None:
    """Of an adapter trained on turns the turns are kept and asked."""
    turns = (Message("system", "Say it."), Message("user", "the soup was good"))
    probes = record_reference_outputs(base, [pair(1, 1, messages=turns)], chat=True)
    assert probes
    assert [(turn.role, turn.content) for turn in probes.rows[0].messages] == [
        (turn.role, turn.content) for turn in turns
    ]
    asked = {
        "prompt": "",
        "messages": [turn.model_dump() for turn in probes.rows[0].messages],
        "choices": list(CHOICES),
    }
    assert probes.rows[0].logprobs == pytest.approx(score(base, [asked], chat=True).logprobs[0], abs=1e-5)
    assert ask_again(base, probes).largest < 1e-5


def test_no_probes_where_none_can_be_asked(base: Model, tmp_path: Path) -> None:
    """`probes=0` keeps no text of the rows; a row with a choice beyond the window is not asked."""
    out = train(base, PAIRS, epochs=1, probes=0, out=tmp_path / "private").path
    assert b"soup" not in (out / CARD).read_bytes()
    assert load_model(str(out), dtype="bfloat16", device="cpu").has_adapter
    long = pair(1, 1, choices=(" word" * 200, " positive"))
    assert record_reference_outputs(base, [long]) is None
    kept = record_reference_outputs(base, [long, pair(2, 0)])
    assert kept
    assert [probe.id for probe in kept.rows] == ["2"]


def test_without_probes_other_weights_are_a_warning(base: Model, tmp_path: Path) -> None:
    """Nothing can be asked of an adapter without probes: that its weights are others is said all the same."""
    folder = train(base, rows(8), epochs=1, probes=0, out=tmp_path / "adapter").path
    with warnings.catch_warnings():
        warnings.simplefilter("error", PromptkitWarning)
        load_model(str(folder), device="cpu")
    path = folder / WEIGHTS
    save_file({name: -5 * weight for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.warns(PromptkitWarning, match="other files, and the adapter has no probes to show"):
        load_model(str(folder), device="cpu")


def test_weights_that_are_missing_are_named(adapter: Path) -> None:
    """Nothing is looked for on a hub where the weights are gone, and what is missing of them is told in one line."""
    path = adapter / WEIGHTS
    weights = load_file(path)
    save_file(dict(list(weights.items())[2:]), path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not fit its base model, a .*: 2 of its places have no tensor, such as"):
        load_model(str(adapter), device="cpu")
    path.unlink()
    with pytest.raises(ModelError, match=rf"the adapter has no {WEIGHTS}; restore it, or train again"):
        load_model(str(adapter), device="cpu")


def test_a_card_from_before_there_were_probes_is_read(adapter: Path) -> None:
    """A card without any of the newer keys loads, and nothing is asked."""
    card = json.loads((adapter / CARD).read_text())
    newer = {"task_hash", "tokenizer_hash", "files_hash", "base_files", "demonstrations", "probes", "merged"}
    (adapter / CARD).write_text(json.dumps({key: value for key, value in card.items() if key not in newer}))
    assert load_model(str(adapter), dtype="bfloat16", device="cpu").has_adapter


def test_an_adapter_is_put_on_a_loaded_model(trained: Adapter, base: Model) -> None:
    """It is the same model as one that is loaded from files, and the base model stays as it was."""
    prompts = [{"prompt": each.prompt, "choices": list(CHOICES)} for each in PAIRS[:4]]
    before = score(base, prompts).logprobs
    put, loaded = put_adapter(base, trained.path), load_model(str(trained.path), device="cpu")
    assert (put.hash, put.name) == (loaded.hash, loaded.name)
    assert score(put, prompts).logprobs == score(loaded, prompts).logprobs != before
    assert score(base, prompts).logprobs == before
    weights = {weight.data_ptr() for weight in base.network.parameters()}
    assert weights <= {weight.data_ptr() for weight in put.network.parameters()}
    with pytest.raises(
        ModelError, match="trained on other weights, configuration or tokenizer than those of 'fake' now"
    ):
        put_adapter(model(seed=2), trained.path)


@pytest.fixture
def beside(base: Model, adapter: Path) -> Path:
    """A copy of the base model's folder that the adapter takes, to be changed."""
    folder = Path(shutil.copytree(base.name, adapter.parent / "base"))
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(base.name, str(folder)))
    edit(adapter, files_hash=fingerprint(adapter))
    return folder


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file and write it in another layout."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=1))


def test_files_that_change_no_score_are_not_asked_about(
    adapter: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes beside the base model, settings of generation and the layout of its configuration ask no probe."""
    monkeypatch.setattr(adapters, "ask_again", lambda *_: pytest.fail("asked"))
    before = load_model(str(adapter), device="cpu").hash
    (beside / "notes.txt").write_text("hello")
    change_json(beside / "generation_config.json", mine=1)
    change_json(beside / "config.json", transformers_version="4.0.0")
    assert load_model(str(adapter), device="cpu").hash != before  # of cells it is another model all the same


def test_other_files_of_the_tokenizer_ask_the_probes(
    adapter: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probes decide: silence where no answer changed, else an error that names the file."""
    change_json(beside / "tokenizer_config.json", model_max_length=77)
    verdicts = []
    monkeypatch.setattr(adapters, "ask_again", lambda *given: verdicts.append(ask_again(*given)) or verdicts[-1])
    load_model(str(adapter), device="cpu")
    assert [(verdict.count, verdict.flips) for verdict in verdicts] == [(16, ())]
    words = json.loads((beside / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    good, bad = "\u0120positive", "\u0120negative"
    vocabulary[good], vocabulary[bad] = vocabulary[bad], vocabulary[good]
    change_json(beside / "tokenizer.json", model=words["model"])
    with pytest.raises(ModelError, match=r"changed their answer.*other tokenizer, other tokenizer.json of the base"):
        load_model(str(adapter), device="cpu")
    edit(adapter, probes=None)
    with pytest.warns(PromptkitWarning, match=r"other tokenizer.json of the base.* has no probes to show"):
        load_model(str(adapter), device="cpu")


def test_another_network_is_refused_by_the_name_of_its_file(adapter: Path, beside: Path) -> None:
    """Other weights or another configuration are an error, whatever the probes say; so for a card of old."""
    config = (beside / "config.json").read_bytes()
    change_json(beside / "config.json", rms_norm_eps=1e-3)
    with pytest.raises(ModelError, match=r"config.json of the base model '.*base' has changed since the adapter was"):
        load_model(str(adapter), device="cpu", on_flip="ignore")
    (beside / "config.json").write_bytes(config)
    weights = load_file(beside / "model.safetensors")
    save_file(
        {name: weight * 1.001 for name, weight in weights.items()}, beside / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match=r"model.safetensors of the base model .* has changed"):
        load_model(str(adapter), device="cpu")
    edit(adapter, base_files={})
    with pytest.raises(ModelError, match="trained on other weights, configuration or tokenizer than those of"):
        load_model(str(adapter), device="cpu")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"logprobs": [-1.0]}, r"probes.rows.0.logprobs is \[-1.0\]: expected one for each of the 2 choices"),
        ({"choices": [" positive"]}, r"probes.rows.0.logprobs is .*: expected one for each of the 1 choices"),
        ({"choices": [], "logprobs": []}, r"probes.rows.0.choices is \[\]: tuple should have at least 1 item"),
        ({"choices": ["", " a"]}, r"probes.rows.0.choices.0 is '': string should have at least 1 character"),
        (None, r"probes.rows is \[\]: tuple should have at least 1 item"),
    ],
    ids=str,
)
def test_a_damaged_card_is_one_line(adapter: Path, change: dict[str, Any] | None, expected: str) -> None:
    """Rows that cannot be probes are refused with the card's name, the place and what was expected."""
    probes = json.loads((adapter / CARD).read_text())["probes"]
    rows = [] if change is None else [{**probes["rows"][0], **change}, *probes["rows"][1:]]
    edit(adapter, probes={**probes, "rows": rows})
    with pytest.raises(TrainError, match=rf"films/promptkit.json: {expected}"):
        load_model(str(adapter), device="cpu")


def test_a_probe_beyond_the_window_names_the_card(adapter: Path) -> None:
    """A prompt that the model cannot take is an error that says whose it is."""
    probes = json.loads((adapter / CARD).read_text())["probes"]
    probes["rows"][0]["prompt"] = "soup " * 400
    edit(adapter, probes=probes, files_hash="other")
    with pytest.raises(WindowError, match=r"films/promptkit.json: a probe does not fit the model any more: .*128"):
        load_model(str(adapter), device="cpu")


def test_tokenizer_hash_is_that_of_what_it_does(base: Model) -> None:
    """The same after saving and loading; another with another chat template or vocabulary."""
    hashes = {hash_tokenizer(base.tokenizer), hash_tokenizer(tokenizer())}
    assert len(hashes) == 1
    other = type(base.tokenizer).from_pretrained(base.name)
    other.chat_template = "{{ messages }}"
    hashes.add(hash_tokenizer(other))
    other = type(base.tokenizer).from_pretrained(base.name)
    other.add_tokens(["soupy"])
    hashes.add(hash_tokenizer(other))
    assert len(hashes) == 3
