"""Every source of chance has a seed of its own: changing one changes that source and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from promptkit.adapters.card import TrainSettings, read_card
from promptkit.errors import TrainError
from promptkit.training import train
from promptkit.training.batches import LengthSampler
from promptkit.training.loss import CompletionTrainer
from tests.helpers.training_fakes import files, model, rows, settings, weights

# peft asks transformers by an old name when it wraps a network
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SEEN = ("init", "batch", "order", "dropout")


class Watch:
    """What a training run drew: the first weights, the rows of every step in their order, and what was dropped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[tuple[int, ...]]] = []
        self.first: dict[str, torch.Tensor] = {}
        self.dropped: list[torch.Tensor] = []
        step = CompletionTrainer.compute_loss

        def watched(trainer: Any, network: torch.nn.Module, inputs: Any, **options: Any) -> torch.Tensor:
            if not self.batches:
                pairs = network.named_parameters()
                self.first = {name: weight.detach().clone() for name, weight in pairs if weight.requires_grad}
                hook = next(module for name, module in network.named_modules() if "lora_dropout.default" in name)
                hook.register_forward_hook(lambda module, given, out: self.dropped.append(out == 0))
            self.batches.append([tuple(ids) for ids in inputs["ids"].tolist()])
            return step(trainer, network, inputs, **options)

        monkeypatch.setattr(CompletionTrainer, "compute_loss", watched)


def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **seeds: int) -> dict[str, Any]:
    """Train with these seeds and return what came of each source."""
    with monkeypatch.context() as patch:
        watch = Watch(patch)
        out = tmp_path / ("-".join(f"{name}{seed}" for name, seed in seeds.items()) or "all")
        train(model(), distinct(), dropout=0.3, batch_size=4, epochs=1, seeds=seeds, out=out)
    return {
        "init": [weight.tolist() for weight in watch.first.values()],
        "batch": sorted(sorted(batch) for batch in watch.batches),
        "order": watch.batches,
        "dropout": [mask.float().mean().item() for mask in watch.dropped],
    }


def distinct() -> list[dict[str, Any]]:
    """Rows of one length, no two the same."""
    return [
        {"prompt": f"Text: {first} {second}. Sentiment:", "completion": " positive"}
        for first in ("good", "cold", "warm", "soup")
        for second in ("good", "cold", "warm", "soup")
    ]


@pytest.mark.parametrize("source", SEEN)
def test_one_seed_changes_its_source_alone(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed for the first weights, the batches, their order or dropout leaves the three others as they were."""
    before, after = drawn(tmp_path, monkeypatch), drawn(tmp_path, monkeypatch, **{source: 9})
    assert before[source] != after[source]
    if source == "dropout":
        assert {name for name in SEEN if before[name] != after[name]} == {"dropout"}
    if source == "init":
        assert (before["batch"], before["order"]) == (after["batch"], after["order"])
    if source == "order":
        assert (before["batch"], before["init"]) == (after["batch"], after["init"])
    if source == "batch":
        assert before["init"] == after["init"]


def test_order_permutes_batches_and_batch_keeps_the_permutation() -> None:
    """The order seed moves whole batches; the batch seed leaves the sequence of lengths where it was."""
    lengths = [length for length in range(40) for _ in range(4)]

    def batches(seed: int, order: int) -> list[tuple[int, ...]]:
        numbers = list(LengthSampler(lengths, 4, seed, order))
        return [tuple(numbers[first : first + 4]) for first in range(0, len(numbers), 4)]

    assert batches(0, 0) == batches(0, 0)
    assert sorted(batches(0, 1)) == sorted(batches(0, 0)) != sorted(batches(1, 0))
    assert batches(0, 1) != batches(0, 0)
    moved = [sorted(batches(seed, 0)).index(batch) for seed in (0,) for batch in batches(seed, 0)]
    assert moved != sorted(moved)


def test_all_seeds_are_in_the_card(tmp_path: Path) -> None:
    """The card has the seed of every source; those that the pairs were made with are the caller's to tell."""
    made = train(model(), rows(8), epochs=1, seed=5, seeds={"init": 3, "data": 7}, out=tmp_path / "adapter")
    seeds = read_card(made.path).settings.seeds
    assert seeds.model_dump() == {"data": 7, "template": None, "init": 3, "batch": 5, "order": 5, "dropout": 5}


def test_one_seed_gives_all(tmp_path: Path) -> None:
    """`seed` is the seed of every source that has none of its own."""
    spread = {"init": 6, "batch": 6, "order": 6, "dropout": 6}
    one = train(model(), rows(12), epochs=1, dropout=0.1, seed=6, out=tmp_path / "one")
    each = train(model(), rows(12), epochs=1, dropout=0.1, seed=0, seeds=spread, out=tmp_path / "each")
    assert files(one)["adapter_model.safetensors"] == files(each)["adapter_model.safetensors"]
    assert weights(one)


def test_unknown_seed_is_named(tmp_path: Path) -> None:
    """A source that there is not, and a seed out of range, are one line."""
    with pytest.raises(TrainError, match=r"there is no seed 'inti': expected data, .* Did you mean 'init'\?"):
        train(model(), rows(8), seeds={"inti": 1}, out=tmp_path / "adapter")
    with pytest.raises(TrainError, match=r"seeds.init is -1: input should be greater than or equal to 0"):
        train(model(), rows(8), seeds={"init": -1}, out=tmp_path / "adapter")


def test_card_from_before_there_were_sources_can_be_read() -> None:
    """A card with one seed alone means that seed for everything that training drew."""
    card = settings(seed=4).model_dump()
    for name in ("seeds", "kind", "top_layers", "micro_batch", "checkpointing", "processes"):
        del card[name]
    assert TrainSettings.model_validate(card) == settings(seed=4)
