"""TRL reads what is exported without a warning, and learns the tokens that promptkit learns."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import pytest

from promptkit.building import make_set
from promptkit.building.build import iterate_pairs
from promptkit.export.formats import export_rows, read_pair_rows
from promptkit.storage.files import write_rows
from promptkit.training.batches import TokenRow, encode_pairs
from tests.conftest import Project
from tests.helpers.training_fakes import model

trl = pytest.importorskip("trl")

pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own


def prepare(path: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """Return the SFTTrainer of a file, which has made token ids of it and warned of nothing."""
    fake = model(window=512)
    settings = trl.SFTConfig(
        output_dir=str(path.parent / "out"),
        report_to=[],
        use_cpu=True,
        bf16=False,
        max_length=None,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))
    logging.getLogger("trl").propagate = True
    with caplog.at_level(logging.WARNING):
        trainer = trl.SFTTrainer(fake.network, args=settings, train_dataset=rows, processing_class=fake.tokenizer)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("trl")] == []
    return trainer


def export(project: Project, format_: str, chat: bool) -> Path:
    """Write the pairs of a task in a format, and return the file."""
    path = project.root / "rows.jsonl"
    write_rows(export_rows(iterate_pairs("films", "films/plain", data="data", chat=chat), format_), path)
    return path


def ours(path: Path, chat: bool) -> list[TokenRow]:
    """Return the rows that promptkit learns from the same file."""
    return encode_pairs(model(window=512), list(read_pair_rows(path, chat=chat)), chat=chat)


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_completions_are_learned_alike(project: Project, caplog: pytest.LogCaptureFixture, chat: bool) -> None:
    """TRL's ids and its start of the loss are promptkit's; behind a label it has the end that it puts everywhere."""
    path = export(project, "prompt-completion", chat)
    for theirs, row in zip(prepare(path, caplog).train_dataset, ours(path, chat), strict=True):
        ids, labels = theirs["input_ids"], theirs["labels"]
        assert tuple(ids[: len(row.ids)]) == row.ids
        assert next(number for number, label in enumerate(labels) if label != -100) == row.start
        assert model().tokenizer.decode(ids[len(row.ids) :]) == ("<end>\n" if chat else "</s>")


@pytest.mark.parametrize("format_", ["messages", "openai"])
def test_turns_are_read_alike(project: Project, caplog: pytest.LogCaptureFixture, format_: str) -> None:
    """Of rows of turns TRL has promptkit's ids; its loss is on all of them, as its documentation says."""
    path = export(project, format_, chat=True)
    for theirs, row in zip(prepare(path, caplog).train_dataset, ours(path, chat=True), strict=True):
        assert tuple(theirs["input_ids"][: len(row.ids)]) == row.ids
        assert theirs["labels"] == theirs["input_ids"]


def test_sets_of_several_wordings_make_batches(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """No column that promptkit adds has the name of one that a trainer fills: the first batch is there."""
    path = project.root / "rows.jsonl"
    asked: dict[str, Any] = {"labels": ["own", "swapped", "random"], "k": (0, 2), "epochs": 2}
    write_rows(export_rows(make_set("films", "films/plain", data="data", **asked).rows(), "prompt-completion"), path)
    batch = next(iter(prepare(path, caplog).get_train_dataloader()))
    assert batch["labels"].shape == batch["input_ids"].shape
