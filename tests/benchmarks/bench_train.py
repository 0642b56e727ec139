"""Rows per second of promptkit's LoRA training beside plain transformers.Trainer + peft on the same rows.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_train.py [--vocab 8192] [--rows 512] [--epochs 3]

Both train the same random 4-million-parameter Llama on the same pairs with the same rank, batch size and
learning rate. The plain trainer is what its documentation shows: labels of -100 on the prompt, batches at
random, padded. CPU seconds are compared, for they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

sys.path.insert(0, str(Path(__file__).parents[2]))
from promptkit.models import Model
from promptkit.train import train
from promptkit.train.batches import encode_pairs, read_pairs
from tests.training_fakes import model as fake_model

WORDS = [
    "the",
    "soup",
    "was",
    "nice",
    "and",
    "very",
    "warm",
    "but",
    "our",
    "bread",
    "came",
    "late",
    "so",
    "we",
    "left",
]
CHOICES = [" negative", " positive"]
LEARNING_RATE = 2e-3


def make_rows(count: int) -> list[dict[str, object]]:
    """Prompts of some 25 to 80 tokens whose label is whether the soup was warm."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        words = draw.choices(WORDS, k=draw.randint(6, 24))
        completion = CHOICES["warm" in words]
        rows.append({"prompt": f"Text: {' '.join(words)}. Sentiment:", "completion": completion, "choices": CHOICES})
    return rows


def train_plain(model: Model, rows: list[dict[str, object]], epochs: int) -> float:
    """Train with stock Trainer and peft; return the last epoch's loss."""
    examples = [
        {"input_ids": list(row.ids), "labels": [-100] * row.start + list(row.ids[row.start :])}
        for row in encode_pairs(model, read_pairs(rows))
    ]
    set_seed(0)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    with TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            learning_rate=LEARNING_RATE,
            warmup_steps=0.1,
            use_cpu=True,
            logging_strategy="epoch",
            save_strategy="no",
            disable_tqdm=True,
        )
        model.tokenizer.pad_token = model.tokenizer.eos_token
        trainer = Trainer(
            get_peft_model(model.network, config),
            arguments,
            train_dataset=examples,
            data_collator=DataCollatorForSeq2Seq(model.tokenizer),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]


def train_ours(model: Model, rows: list[dict[str, object]], epochs: int) -> float:
    """Train with promptkit; return the last epoch's loss."""
    with TemporaryDirectory() as scratch:
        return train(model, rows, epochs=epochs, learning_rate=LEARNING_RATE, out=Path(scratch) / "adapter").losses[-1]


def main() -> None:
    """Print one line per trainer and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=8192, help="words in the network's vocabulary")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    rows = make_rows(options.rows)
    seconds: dict[str, float] = {}
    trainers: dict[str, Callable[[Model, list[dict[str, object]], int], float]] = {
        "Trainer + peft": train_plain,
        "promptkit": train_ours,
    }
    for name, run in trainers.items():
        model = fake_model(
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=704,
            vocab=options.vocab,
        )
        cpu, wall = time.process_time(), time.perf_counter()
        loss = run(model, rows, options.epochs)
        seconds[name] = time.process_time() - cpu
        wall = time.perf_counter() - wall
        print(f"{name:15} {seconds[name]:7.1f} s CPU {wall:7.1f} s wall   last epoch's loss {loss:.4f}")
    parameters = sum(weight.numel() for weight in model.network.parameters())
    print(
        f"{seconds['Trainer + peft'] / seconds['promptkit']:.2f} x, {torch.get_num_threads()} thread(s), "
        f"{parameters / 1e6:.1f}M parameters, {options.rows} rows x {options.epochs} epochs"
    )


if __name__ == "__main__":
    main()
