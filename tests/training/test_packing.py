"""Packed rows give what rows alone give, forward and backward, and a network that cannot take them gets padding."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM, DataCollatorForSeq2Seq

from promptkit.models import Model
from promptkit.training import collation, train
from promptkit.training.batches import Batch, TokenRow, collate
from promptkit.training.collation import choose_collation
from promptkit.training.lora import wrap
from promptkit.training.loss import attending, completion_logits, completion_loss
from promptkit.training.packed_attention import Pack, UnpackableError, attend, packed
from promptkit.training.packing import Group, PackedLayout, lay_out, pack
from tests.helpers.training_fakes import SHAPES, model, tokenizer
from tests.training.test_train import rows as plain_rows
from tests.training.test_train import settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PREFIX = tuple(range(20, 32))
OTHER = tuple(range(40, 55))
ROWS = [
    TokenRow((*PREFIX, 60, 61, 62, 5), 15),
    TokenRow((*PREFIX, 70, 71, 72, 73, 74, 6, 7), 17),
    TokenRow((*PREFIX, 80, 81, 82, 5), 15),
    TokenRow((*OTHER, 90, 91, 9), 17),
    TokenRow((*OTHER, 90, 95, 96, 8), 18),
    TokenRow((100, 101, 102, 8), 3),
]

tokens = st.lists(st.integers(1, 3), min_size=1, max_size=14)


@st.composite
def training_rows(draw: st.DrawFn) -> list[TokenRow]:
    """Rows of few different tokens, so that many begin alike."""
    prefixes = [draw(tokens) for _ in range(2)]
    made = []
    for _ in range(draw(st.integers(1, 6))):
        prompt = draw(st.sampled_from(prefixes)) + draw(tokens)
        made.append(TokenRow((*prompt, *draw(tokens)), len(prompt)))
    return made


@given(training_rows())
def test_every_target_sees_its_own_row_and_nothing_else(rows: list[TokenRow]) -> None:
    """For any rows, what each read position looks at is its row up to there, at the right places."""
    batch, (layout, ordered) = pack(rows), lay_out(rows)
    seen, ids, positions = Pack(layout).seen, batch["ids"][0], batch["positions"]
    reads = iter(batch["loss_mask"][0].nonzero()[:, 0].tolist())
    targets = iter(batch["targets"].tolist())
    for row in ordered:
        for place in range(row.start, len(row.ids)):
            columns = seen[next(reads)]
            assert tuple(ids[columns].tolist()) == row.ids[:place]
            assert positions is not None
            assert positions[0, columns].tolist() == list(range(place))
            assert next(targets) == row.ids[place]
    assert next(reads, None) is next(targets, None) is None
    assert batch["weights"].sum().item() == pytest.approx(1)
    assert layout.length == len(ids) <= sum(row.length for row in rows)


def test_rows_that_begin_alike_share_what_they_begin_with() -> None:
    """Each instruction stands once, whatever the order of the rows, and rows as long as one another side by side."""
    for rows in (ROWS, ROWS[::-1]):
        layout, ordered = lay_out(rows)
        assert layout == PackedLayout((Group(12, ((2, 3), (1, 6))), Group(16, ((1, 1), (1, 2))), Group(0, ((1, 3),))))
        assert sorted(ordered, key=lambda row: row.ids) == sorted(rows, key=lambda row: row.ids)
    assert pack(ROWS)["ids"].shape == (1, 12 + 12 + 16 + 3 + 3)


def test_position_that_is_read_is_never_shared() -> None:
    """The same prompt with other completions keeps one position of its own for each of them."""
    rows = [TokenRow((*PREFIX, 5), 12), TokenRow((*PREFIX, 6), 12)]
    batch = pack(rows)
    assert batch["layout"] == PackedLayout((Group(11, ((2, 1),)),))
    assert batch["targets"].tolist() == [5, 6]


@pytest.mark.parametrize("heads", [2, 4], ids=["grouped", "one-each"])
def test_attention_in_parts_equals_a_mask(heads: int) -> None:
    """Outputs and gradients are those of one attention under the mask of what each column sees."""
    layout, _ = lay_out(ROWS)
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> torch.Tensor:
        states = torch.randn(1, layout.length, count, 8, generator=generator).transpose(1, 2)
        return states.requires_grad_()

    query, key, value = draw(4), draw(heads), draw(heads)
    towards = torch.randn(1, layout.length, 4, 8, generator=generator)
    with packed(AutoConfig.for_model("llama"), layout) as active:
        found, _ = attend(torch.nn.Module(), query, key, value, None, scaling=0.3)
        mask = active.seen[None, None]
    expected = scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found, (query, key, value), towards)
    for one, other in zip(ours, torch.autograd.grad(expected, (query, key, value), towards), strict=True):
        torch.testing.assert_close(one, other)


def test_attention_that_the_kernel_does_not_take_gets_a_mask() -> None:
    """Values of another size than the keys, as some networks have, are attended to with the same result."""
    layout, _ = lay_out(ROWS)
    query, key = torch.randn(1, 2, layout.length, 8), torch.randn(1, 2, layout.length, 8)
    value = torch.randn(1, 2, layout.length, 6)
    with packed(AutoConfig.for_model("llama"), layout):
        found, _ = attend(torch.nn.Linear(1, 1), query, key, value, None, scaling=0.3)
        expected, _ = attend(
            torch.nn.Linear(1, 1), query, key, torch.cat([value, value[..., :2]], -1), None, scaling=0.3
        )
    torch.testing.assert_close(found, expected[..., :6])


def test_attention_with_more_than_a_mask_is_refused() -> None:
    """A network that wants something else done to its scores is not silently given plain attention."""
    states = torch.randn(1, 2, 46, 8)
    with packed(AutoConfig.for_model("llama"), lay_out(ROWS)[0]), pytest.raises(UnpackableError, match="has softcap"):
        attend(torch.nn.Module(), states, states, states, None, softcap=30.0)


def gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def randomize(network: torch.nn.Module) -> None:
    """Give the second matrices, zero at first, some weight, so that all gradients count."""
    torch.manual_seed(3)
    for name, weight in network.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)


ONE_TARGET = [TokenRow((*row.ids[: row.start], row.ids[-1]), row.start) for row in ROWS]  # a row's mean is its token


def learn_packed(kind: str, dtype: torch.dtype = torch.float32) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of the rows, and what it gives the weights of an adapter of ours."""
    base = model(kind)
    base.network.to(dtype)
    network, batch = wrap(base, settings()), pack(ONE_TARGET)
    randomize(network)
    with attending(network, batch):
        loss = completion_loss(network, batch)
        loss.backward()
    return loss.item(), gradients(network)


def learn_padded(kind: str, dtype: torch.dtype = torch.float32) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the same of stock peft, whose rows are padded and have labels."""
    base, ours = model(kind), wrap(model(kind), settings()).peft_config["default"]
    config = LoraConfig(
        r=ours.r,
        lora_alpha=ours.lora_alpha,
        target_modules="all-linear",
        fan_in_fan_out=ours.fan_in_fan_out,
        task_type="CAUSAL_LM",
    )
    network = get_peft_model(base.network.to(dtype), config)
    randomize(network)
    padding = tokenizer()
    padding.pad_token = padding.eos_token
    labels = [[-100] * row.start + list(row.ids[row.start :]) for row in ONE_TARGET]
    examples = [{"input_ids": list(row.ids), "labels": each} for row, each in zip(ONE_TARGET, labels, strict=True)]
    loss = network(**DataCollatorForSeq2Seq(padding)(examples)).loss
    loss.backward()
    return loss.item(), gradients(network)


@pytest.mark.parametrize("kind", SHAPES)
def test_loss_and_gradients_equal_those_of_a_plain_trainer(kind: str) -> None:
    """Packed and fused, the loss and every LoRA gradient are stock peft's on padded rows with labels, within 1e-5."""
    (loss, found), (plain, expected) = learn_packed(kind), learn_padded(kind)
    assert abs(loss - plain) < 1e-5
    assert found.keys() == expected.keys()
    assert len(found) > 14
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_bfloat16_costs_no_more_precision_than_in_a_plain_trainer(kind: str) -> None:
    """Packed and fused in bfloat16, the gradients are as near to those in float32 as stock peft's in bfloat16."""
    _, exact = learn_padded(kind)

    def error(found: dict[str, torch.Tensor]) -> float:
        return sum(float((found[name] - exact[name]).square().sum()) for name in exact) ** 0.5

    ours, theirs = (error(learn(kind, torch.bfloat16)[1]) for learn in (learn_packed, learn_padded))
    assert 0 < ours < 1.5 * theirs


@pytest.mark.parametrize("kind", SHAPES)
def test_architectures_are_packed(kind: str) -> None:
    """The networks that the tests train take packed rows, in their first batch and without any reason against."""
    base = model(kind)
    chosen = choose_collation(replace(base, network=wrap(base, settings())), ROWS, 6)
    assert (chosen.collate, chosen.padded) == (pack, "")


def other(kind: str, **shape: Any) -> Model:
    """A random model of an architecture that the other tests do not use."""
    config = AutoConfig.for_model(kind, vocab_size=300, hidden_size=32, num_hidden_layers=2, **shape)
    torch.manual_seed(0)
    return Model.of("fake", AutoModelForCausalLM.from_config(config).eval(), tokenizer(), "0" * 64)


def why_padded(base: Model, rows: list[TokenRow] = ROWS) -> str:
    """Return why a model's rows are padded."""
    network = base.network
    network.eval()
    chosen = choose_collation(base, rows, len(rows))
    assert (chosen.collate is collate) == bool(chosen.padded)
    return chosen.padded


MISTRAL = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64, "head_dim": 16}


def test_window_shorter_than_a_row_is_padded() -> None:
    """A sliding window is kept to by padding, named with the longest row; one that no row reaches does not matter."""
    assert "looks back 16 tokens, but a row has 18" in why_padded(other("mistral", sliding_window=16, **MISTRAL))
    assert why_padded(other("mistral", sliding_window=18, **MISTRAL)) == ""


def test_state_space_layers_are_padded() -> None:
    """A network whose layers carry a state along the sequence cannot take rows in parallel, and says so."""
    assert why_padded(other("mamba", state_size=4)) == "MambaForCausalLM takes no past_key_values or position_ids"


def test_positions_within_the_attention_are_padded() -> None:
    """A network that gets the distance of tokens from their place in the batch cannot be packed."""
    assert "takes no position_ids" in why_padded(other("bloom", n_head=2))


def logits_with_ones(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """What a caller does who leaves the mask of ones that tokenizers give."""
    ones = torch.ones_like(batch["ids"])
    return network(input_ids=batch["ids"], attention_mask=ones, position_ids=batch["positions"]).logits[
        batch["loss_mask"]
    ]


def logits_with_cache(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """What a caller does who leaves the cache on, which is transformers' default."""
    return network(input_ids=batch["ids"], position_ids=batch["positions"], use_cache=True).logits[batch["loss_mask"]]


def halved(base: Model) -> Model:
    """The same model in bfloat16."""
    return replace(base, network=base.network.to(torch.bfloat16), dtype="bfloat16")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("variant", [logits_with_ones, logits_with_cache, completion_logits])
def test_rows_that_read_each_other_are_caught(
    monkeypatch: pytest.MonkeyPatch, attention: str, half: bool, variant: Any
) -> None:
    """With a mask of ones, with a cache, or with transformers' own guess, rows are mixed: the first batch shows it.

    In bfloat16 no rounding hides it.
    """
    base = halved(model()) if half else model()
    base.network.config._attn_implementation = attention
    assert why_padded(base) == ""
    monkeypatch.setattr(collation, "attending", lambda *_: nullcontext())
    monkeypatch.setattr(collation, "completion_logits", variant)
    assert "packed rows differ from rows alone by" in why_padded(base)


def deep() -> Model:
    """A random network in which bfloat16 moves logits by more than a twentieth."""
    return halved(model(num_hidden_layers=12, initializer_range=0.3))


def test_rounding_is_no_reason_to_pad() -> None:
    """Where bfloat16 itself moves logits far, rows are packed all the same: they are as near to float32 as alone."""
    base = deep()
    with torch.no_grad():
        alone, packed = (run(base.network, ROWS) for run in (collation._run_alone, collation._run_packed))
    assert collation._find_error(packed, alone) > 0.05
    assert why_padded(base) == ""


def test_wrong_places_are_caught_where_rounding_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that go on from row to row are wrong, however much bfloat16 rounds; so is what float32 cannot check."""
    base = deep()

    def shifted(rows: list[TokenRow]) -> Batch:
        batch = pack(rows)
        return {**batch, "positions": batch["positions"] + (batch["positions"] > 5)}  # type: ignore[return-value, operator]

    monkeypatch.setattr(collation, "pack", shifted)
    assert "packed rows differ from rows alone by" in choose_collation(base, ROWS, len(ROWS)).padded


def test_network_without_float32_is_compared_with_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the float32 run does not fit, a padded batch shows what rounding does, and mixed rows are caught."""

    def refuse(_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(collation, "in_float32", refuse)
    assert why_padded(halved(model())) == ""
    monkeypatch.setattr(collation, "attending", lambda *_: nullcontext())
    monkeypatch.setattr(collation, "completion_logits", logits_with_ones)
    assert "packed rows differ from rows alone by" in why_padded(halved(model()))


def test_network_that_breaks_on_packed_rows_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the first packed pass is a reason, not a crash."""

    def refuse(*_: Any) -> None:
        raise UnpackableError("its attention has softcap")

    monkeypatch.setattr(collation, "completion_logits", refuse)
    assert why_padded(model()) == "packed rows do not run: its attention has softcap"


def test_padded_training_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What cannot be packed trains all the same, to the same weights but for rounding; the adapter has the reason."""
    made = [train(model(), plain_rows(24), epochs=1, out=tmp_path / "packed")]
    monkeypatch.setattr(collation, "_difference", lambda *_: "for a test")
    made.append(train(model(), plain_rows(24), epochs=1, out=tmp_path / "padded"))
    assert [each.padded for each in made] == ["", "for a test"]
    assert made[0].losses == pytest.approx(made[1].losses, abs=1e-5)


def test_checkpointed_layers_attend_along_the_layout_in_the_backward_too() -> None:
    """Layers that are run again in the backward still see their own rows, and only those."""
    network, batch, found = wrap(model(), settings()), pack(ROWS), []
    randomize(network)
    for checkpointed in (False, True):
        network.zero_grad()
        if checkpointed:
            network.train()
            network.enable_input_require_grads()
            network.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        with attending(network, batch):
            completion_loss(network, batch).backward()
        found.append({name: gradient.clone() for name, gradient in gradients(network).items()})
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-6, rtol=1e-5)
