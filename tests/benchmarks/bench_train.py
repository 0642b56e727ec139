"""Seconds per step and peak memory of promptkit's LoRA training beside transformers.Trainer + peft, and beside TRL.

    python tests/benchmarks/bench_train.py [--shape tiny|135m|150k] [--batch 16] [--steps 8]
        [--task sst2 --data my/sst2] [--peer-python VENV/bin/python] [--dtype auto]

All train the same network with random weights on the same rows of a task, with the same rank, first weights, batches,
optimizer and learning rates, in one number format: `auto` is that which `promptkit train --dtype auto` takes here.
`Trainer + peft` is what its documentation shows: labels of -100 on the prompt, padded batches. `TRL` is SFTTrainer on
tokenized rows, needs `--peer-python` with promptkit and trl in it, and runs twice: as it comes, and without activation
checkpointing, its best on a CPU. `promptkit` has the same rows in the same batches, `by length` its own batches. Each
is a process of its own; they take turns, some steps at a time, and one more round before it that is not counted:
`promptkit` checks its packing there. Taken is the median over the turns of seconds (and processor seconds, which depend
less on what else the machine does) per token of the rows, for batches by length are now short, now long; it is given
for a step of as many tokens as the mean one. All processes stay, and a stock trainer of Qwen's shape on 16 rows has
some 9 GB: name those to be compared with `--only`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "llama",
        {
            "vocab_size": 8192,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 704,
        },
    ),
    "135m": (  # SmolLM-135M
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "tie_word_embeddings": True,
        },
    ),
    "150k": (  # Qwen2.5-0.5B
        "qwen2",
        {
            "vocab_size": 151936,
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "tie_word_embeddings": True,
        },
    ),
}
PLAIN, TRL, TRL_BEST, OURS, SORTED = "Trainer + peft", "TRL", "TRL, best", "promptkit", "promptkit, by length"
LEARNING_RATE = 1e-3
RANK = 8


class Pace:
    """Lets a trainer go on for as many steps as the other process allows, and reports them to it."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.tokens = 0
        self.left = 0

    def wait(self) -> None:
        """Wait until steps are allowed; the clock starts."""
        self.left = self.block = int(input())
        self.losses.clear()
        self.tokens = 0
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def step(self) -> None:
        """Count one step."""
        self.left -= 1
        if not self.left:
            report = {
                "cpu": (time.process_time() - self.cpu) / self.block,
                "wall": (time.perf_counter() - self.wall) / self.block,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "losses": self.losses[:],
                "tokens": self.tokens / self.block,
            }
            print("REPORT " + json.dumps(report), flush=True)
            self.wait()


def build_model(options: argparse.Namespace) -> Any:
    """Return a random model of the shape, with the tokenizer of `tiny`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from promptkit.adapters.loading import load_model
    from promptkit.models import Model

    kind, shape = SHAPES[options.shape]
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()
    return Model.of("random", network.to(getattr(torch, options.dtype)), load_model("tiny").tokenizer, "0" * 64)


def build_pairs(options: argparse.Namespace) -> list[Any]:
    """Return as many pairs of the task as the steps take, in a random order."""
    import promptkit

    pairs = promptkit.build_pairs(options.task, options.template, data=options.data)
    drawn = list(pairs)
    random.Random(0).shuffle(drawn)
    wanted = options.batch * options.all_steps
    return (drawn * (wanted // len(drawn) + 1))[:wanted]


def choose_format(options: argparse.Namespace) -> None:
    """Print the number format in which a step of promptkit's is the faster here."""
    from promptkit.training.precision import choose_dtype

    options.dtype, options.all_steps = "float32", 1
    timing = choose_dtype(build_model(options), build_pairs(options))
    print("seconds of a step of eight rows:", dict(timing.seconds), file=sys.stderr)
    print(timing.dtype)


def train_ours(options: argparse.Namespace, pace: Pace, *, by_length: bool) -> None:
    """Train with promptkit; without `by_length`, on the rows in their order."""
    from promptkit.training import batches, loss, train

    if not by_length:
        batches.LengthSampler.__iter__ = lambda self: iter(range(len(self)))  # type: ignore[method-assign]
    compute = loss.completion_loss

    def completion_loss(network: Any, batch: Any) -> Any:
        found = compute(network, batch)
        pace.losses.append(found.item())
        if batch["layout"]:
            groups = batch["layout"].groups
            pace.tokens += sum(count * (group.prefix + length) for group in groups for count, length in group.runs)
        else:
            pace.tokens += int(batch["attention"].sum())
        return found

    loss.completion_loss = completion_loss
    model, pairs = build_model(options), build_pairs(options)
    with TemporaryDirectory() as scratch:
        pace.wait()
        train(
            model,
            pairs,
            rank=RANK,
            learning_rate=LEARNING_RATE,
            epochs=1,
            batch_size=options.batch,
            out=Path(scratch) / "adapter",
            progress=lambda *_: pace.step(),
        )


def train_theirs(options: argparse.Namespace, pace: Pace, make: Callable[..., Any]) -> None:
    """Train with a stock trainer, which `make` puts together."""
    from peft import LoraConfig, get_peft_model
    from transformers import TrainerCallback, set_seed

    from promptkit.training.batches import encode_pairs, read_pairs

    class Callback(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            pace.step()

    model = build_model(options)
    rows = encode_pairs(model, read_pairs(build_pairs(options)))
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    set_seed(0)
    network = get_peft_model(model.network, config)
    model.tokenizer.pad_token = model.tokenizer.eos_token
    with TemporaryDirectory() as scratch:
        arguments = {
            "output_dir": scratch,
            "num_train_epochs": 1,
            "per_device_train_batch_size": options.batch,
            "train_sampling_strategy": "sequential",
            "learning_rate": LEARNING_RATE,
            "warmup_steps": 0.1,
            "use_cpu": True,
            "logging_strategy": "no",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        trainer = make(network, model.tokenizer, rows, arguments)
        trainer.add_callback(Callback())
        compute = trainer.compute_loss

        def compute_loss(network: Any, inputs: Any, *given: Any, **more: Any) -> Any:
            pace.tokens += int(inputs["attention_mask"].sum()) - len(inputs["attention_mask"])  # all but the last
            found = compute(network, inputs, *given, **more)
            pace.losses.append(found.item())
            return found

        trainer.compute_loss = compute_loss
        pace.wait()
        trainer.train()


def make_plain(network: Any, tokenizer: Any, rows: list[Any], arguments: dict[str, Any]) -> Any:
    """Return transformers' Trainer as its documentation sets it up."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    examples = [{"input_ids": list(row.ids), "labels": [-100] * row.start + list(row.ids[row.start :])} for row in rows]
    return Trainer(
        network,
        TrainingArguments(**arguments),
        train_dataset=examples,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )


def make_trl(network: Any, tokenizer: Any, rows: list[Any], arguments: dict[str, Any], *, best: bool) -> Any:
    """Return TRL's SFTTrainer, with `best` without activation checkpointing."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    columns = [{"input_ids": list(row.ids), "completion_mask": [0] * row.start + [1] * row.targets} for row in rows]
    more = {"gradient_checkpointing": False} if best else {}
    return SFTTrainer(
        network,
        SFTConfig(**arguments, **more, bf16=False, max_length=None, completion_only_loss=True),
        train_dataset=Dataset.from_list(columns),
        processing_class=tokenizer,
    )


CONTESTANTS: dict[str, Callable[[argparse.Namespace, Pace], None]] = {
    PLAIN: lambda options, pace: train_theirs(options, pace, make_plain),
    TRL: lambda options, pace: train_theirs(options, pace, lambda *given: make_trl(*given, best=False)),
    TRL_BEST: lambda options, pace: train_theirs(options, pace, lambda *given: make_trl(*given, best=True)),
    OURS: lambda options, pace: train_ours(options, pace, by_length=False),
    SORTED: lambda options, pace: train_ours(options, pace, by_length=True),
}


class Contestant:
    """A process that trains when told to."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        python = options.peer_python if name in (TRL, TRL_BEST) else sys.executable
        self.name = name
        self.reports: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [python, __file__, *sys.argv[1:], "--dtype", options.dtype, "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if options.verbose else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TRL_EXPERIMENTAL_SILENCE": "1"},
        )

    def run(self, steps: int) -> None:
        """Let it run some steps, and note what it reports."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("REPORT "):
                self.reports.append(json.loads(line.removeprefix("REPORT ")))
                print(f"{self.name}: {line.removeprefix('REPORT ').strip()}", file=sys.stderr, flush=True)
                return
        raise SystemExit(f"{self.name}: ended without a report; see what it says with --verbose")

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return [loss for report in self.reports for loss in report["losses"]]

    def figure(self, name: str) -> float:
        """What a step of the mean size takes: the median over its turns, the first left out, of what a token takes."""
        size = mean(report["tokens"] for report in self.reports)
        return size * median(report[name] / report["tokens"] for report in self.reports[1:])


def compare(options: argparse.Namespace) -> Iterator[Contestant]:
    """Yield the contestants when all have had their turns."""
    names = [PLAIN, *([TRL, TRL_BEST] if options.peer_python else []), OURS, SORTED]
    contestants = [Contestant(name, options) for name in names if not options.only or name in options.only]
    for _ in range(1 + options.steps // options.block):
        for contestant in contestants:
            contestant.run(options.block)
    for contestant in contestants:
        contestant.process.kill()
    yield from contestants


def main() -> None:
    """Print one line per trainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--task", default="reviews")
    parser.add_argument("--data", help="local data in place of the task's own")
    parser.add_argument("--template", default="sentiment/plain")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="steps that are counted")
    parser.add_argument("--block", type=int, default=2, help="steps per turn")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--peer-python", help="the Python of an environment with trl")
    parser.add_argument("--only", action="append", choices=CONTESTANTS, help="leave the others out")
    parser.add_argument("--verbose", action="store_true", help="show what the trainers print")
    parser.add_argument("--worker", choices=[*CONTESTANTS, "format"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.all_steps = options.steps + options.block
    if options.worker == "format":
        choose_format(options)
        return
    if options.worker:
        CONTESTANTS[options.worker](options, Pace())
        return
    if options.dtype == "auto":  # in a process of its own: a child starts with the peak memory of its parent
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", "format"]
        options.dtype = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    print(f"{options.shape} in {options.dtype}", flush=True)
    contestants = list(compare(options))
    base, loss = contestants[0], contestants[0].losses
    for each in contestants:
        apart = max(abs(ours - theirs) for ours, theirs in zip(each.losses, loss, strict=True))
        print(
            f"{each.name:21} {each.figure('wall'):7.2f} s per step "
            f"{base.figure('wall') / each.figure('wall'):5.2f} x   {each.figure('cpu'):7.2f} s CPU "
            f"{base.figure('cpu') / each.figure('cpu'):5.2f} x   peak {each.reports[-1]['peak'] / 2**20:6.0f} MiB "
            f"({each.reports[-1]['peak'] / base.reports[-1]['peak']:.2f} x)   losses differ by at most {apart:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
