"""Seconds that promptkit and lm-evaluation-harness take to score the same prompts with the same model.

    python tests/benchmarks/bench_score.py --data FOLDER --peer-python PYTHON [--workloads sst2-16,order] [--repeats 3]

FOLDER holds sst2/, trec/ and agnews/ as JSONL, one file per split; PYTHON is an interpreter that has
lm_eval==0.4.13 and accelerate, and torch and transformers in the versions of this one. Prompts are built by
promptkit, the weights are random, the tokenizer is trained on SST-2's prompts (each label is one token then, of which
lm-eval makes use) and elsewhere on the questions alone. Every run is a process of its own, the two sides take turns,
and the fastest of a side's runs counts. What is timed is `score` and `HFLM.loglikelihood`, from texts to numbers;
loading and a first short call are not. lm-eval gets the batch size that is fastest on the first rows of the workload.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from promptkit.costs.meter import Meter  # noqa: E402 - the peer's interpreter finds promptkit only now

TOPICS = """\
{% import "topic/plain.jinja" as plain %}
{% set labels = {
    "world": "world affairs", "sports": "sports", "business": "business", "technology": "science and technology",
} %}
{% set instruction = plain.instruction %}
{% set input = plain.input %}
{% set target = plain.target %}
"""
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "vocab_size": 8192},
    "m135": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152},
}
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Workload:
    """What is scored: `items` queries behind k demonstrations of a task, in `orders` sequences.

    `target` is how many times as fast as the peer it is meant to be.
    """

    task: str
    k: int
    target: float
    items: int = 200
    orders: int = 1
    shape: str = "small"
    dtype: str = "float32"
    template: str | None = None


WORKLOADS = {
    "sst2-16": Workload("sst2", 16, 20),
    "sst2-4": Workload("sst2", 4, 7),
    "order": Workload("sst2", 4, 5.5, items=100, orders=24),
    "trec-16": Workload("trec", 16, 10),
    "trec-4": Workload("trec", 4, 7),
    "agnews-16": Workload("agnews", 16, 10, template="topic/words"),
    "agnews-4": Workload("agnews", 4, 7, template="topic/words"),
    "m135": Workload("sst2", 16, 15, items=20, shape="m135"),
    "m135-bf16": Workload("sst2", 16, 13, items=20, shape="m135", dtype="bfloat16"),
}


def make_rows(work: Workload, data: Path) -> Rows:
    """Build the prompts of a workload."""
    import promptkit as pk

    task = pk.load_task(work.task)
    settings = {"k": work.k, "limit": work.items, "data": str(data / work.task), "train_limit": 2000}
    if work.task == "sst2":
        settings["split"] = "validation"
    template = work.template or f"{task.templates}/plain"
    rows: Rows = []
    for order in range(work.orders):
        prompts = pk.build_prompts(task, template, order=order if work.orders > 1 else "given", **settings)
        rows += [
            {"id": str(len(rows) + at), "prompt": row["prompt"], "choices": row["choices"]}
            for at, row in enumerate(prompts)
        ]
    return rows


def make_model(shape: str, texts: list[str], folder: Path) -> None:
    """Save a random Llama and a byte-level BPE trained on `texts`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    sizes = SHAPES[shape]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=4096
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        **sizes,
        **HEADS,
        max_position_embeddings=4096,
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def score_with_promptkit(rows: Rows, folder: Path, dtype: str) -> dict[str, Any]:
    """Time promptkit on the rows."""
    import promptkit as pk
    from promptkit.costs.flops import shape_of

    model = pk.load_model(str(folder), dtype=dtype, device="cpu")
    pk.score(model, [{"prompt": "warm up", "choices": [" a", " b"]}])
    found = measure(lambda: pk.score(model, rows))
    table = found.pop("result")
    return {
        **found,
        "logprobs": table.logprobs,
        "tokens": table.tokens_computed,
        "unique": table.tokens_unique,
        "flops": 2.0 * shape_of(model.network).body * table.tokens_unique,
        "matmul": measure_matmul(dtype),
    }


def score_with_peer(rows: Rows, folder: Path, dtype: str, batch_sizes: list[int]) -> dict[str, Any]:
    """Time lm-evaluation-harness on the rows, with the best of the batch sizes."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(pretrained=str(folder), dtype=dtype, device="cpu", batch_size=1)
    tokens = 0
    call = peer._model_call

    def counting(inps: Any, *more: Any, **options: Any) -> Any:
        nonlocal tokens
        tokens += inps.numel()
        return call(inps, *more, **options)

    peer._model_call = counting

    def run(part: Rows) -> list[Any]:
        requests = [
            Instance("loglikelihood", row, (row["prompt"], choice), at)
            for row in part
            for at, choice in enumerate(row["choices"])
        ]
        return [logprob for logprob, _ in peer.loglikelihood(requests, disable_tqdm=True)]

    run(rows[:1])
    tried = {}
    for size in batch_sizes:
        peer.batch_size_per_gpu = size
        start = time.process_time()
        run(rows[:24])
        tried[size] = time.process_time() - start
    peer.batch_size_per_gpu = min(tried, key=tried.__getitem__)
    tokens = 0
    found = measure(lambda: run(rows))
    logprobs = iter(found.pop("result"))
    return {
        **found,
        "logprobs": [[next(logprobs) for _ in row["choices"]] for row in rows],
        "tokens": tokens,
        "batch_size": peer.batch_size_per_gpu,
    }


def measure(run: Callable[[], Any]) -> dict[str, Any]:
    """Run once: seconds of wall clock and of processor time, and how far memory rose above what it was."""
    before = resident_bytes()
    with Meter() as meter:
        start = time.process_time()
        result = run()
        cpu = time.process_time() - start
    memory = meter.peak_memory_bytes
    return {"result": result, "seconds": meter.seconds, "cpu": cpu, "memory": memory, "added": memory - before}


def resident_bytes() -> int:
    """The bytes this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def measure_matmul(dtype: str) -> float:
    """FLOPs per second of processor-wide matrix products, 1024 x 1024 x 4096: the best of ten."""
    import torch

    left = torch.randn(1024, 1024, dtype=getattr(torch, dtype))
    right = torch.randn(1024, 4096, dtype=getattr(torch, dtype))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * 1024 * 1024 * 4096 / best


def run_child(python: str, side: str, folder: Path, dtype: str, batch_sizes: str) -> dict[str, Any]:
    """Score in a process of its own."""
    command = [
        python,
        __file__,
        "--side",
        side,
        "--folder",
        str(folder),
        "--dtype",
        dtype,
        "--batch-sizes",
        batch_sizes,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(name: str, options: argparse.Namespace, folder: Path) -> None:
    """Print the line of one workload."""
    work = WORKLOADS[name]
    rows = make_rows(work, options.data)
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(rows))
    if work.task == "sst2":  # choices of one token
        texts = [row["prompt"] for row in rows] + rows[0]["choices"] * 1000
    else:  # of several
        texts = read_texts(options.data / work.task)
    make_model(work.shape, texts, folder)
    sides: dict[str, list[dict[str, Any]]] = {"promptkit": [], "lm-eval": []}
    for _ in range(options.repeats):
        sides["promptkit"].append(run_child(sys.executable, "promptkit", folder, work.dtype, options.batch_sizes))
        if options.peer_python:
            sides["lm-eval"].append(run_child(options.peer_python, "lm-eval", folder, work.dtype, options.batch_sizes))
    print_line(name, work, sides["promptkit"], sides["lm-eval"], options.by)


def read_texts(folder: Path) -> list[str]:
    """The questions of a training split, to train a tokenizer on."""
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [str(row.get("sentence") or row["text"]) for row in rows]


HEAD = (
    "workload   target  ratio    s (peer)     s (ours)   tokens/unique  most possible  "
    "max |d| nats  argmax  MiB added (peer, ours)  of matmul"
)


def print_line(name: str, work: Workload, ours: list[dict[str, Any]], peers: list[dict[str, Any]], by: str) -> None:
    """Print one workload's figures; without a peer, only our own."""
    mine = min(ours, key=lambda found: found[by])
    share = mine["flops"] / mine[by] / max(found["matmul"] for found in ours)
    line = f"{name:10} {work.target:5.1f} x "
    waste = f"{mine['tokens']:,}/{mine['unique']:,} = {mine['tokens'] / mine['unique']:.3f}"
    if not peers:
        print(f"{line} {mine[by]:.2f} s  {waste}  {mine['added'] / 2**20:.0f} MiB  {share:.0%} of matmul", flush=True)
        return
    peer = min(peers, key=lambda found: found[by])
    pairs = [
        pair
        for left, right in zip(mine["logprobs"], peer["logprobs"], strict=True)
        for pair in zip(left, right, strict=True)
    ]
    apart = max(abs(left - right) for left, right in pairs)
    same = sum(
        left.index(max(left)) == right.index(max(right))
        for left, right in zip(mine["logprobs"], peer["logprobs"], strict=True)
    )
    print(
        f"{line} {peer[by] / mine[by]:5.1f} x  {peer[by]:8.2f} (bs {peer['batch_size']}) {mine[by]:8.2f}   {waste}   "
        f"{peer['tokens'] / mine['unique']:.1f} x   {apart:.1e}   {same}/{len(mine['logprobs'])}   "
        f"{peer['added'] / 2**20:.0f}, {mine['added'] / 2**20:.0f}   {share:.0%}",
        flush=True,
    )


def main() -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=lambda text: Path(text).resolve(), help="folder with sst2/, trec/, agnews/")
    parser.add_argument("--peer-python", help="an interpreter with lm_eval; without one, only promptkit is run")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--batch-sizes", default="1,4,8,16", help="what lm-eval may choose from")
    parser.add_argument("--by", choices=["seconds", "cpu"], default="seconds", help="wall clock, or processor time")
    parser.add_argument("--side", choices=["promptkit", "lm-eval"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        rows = json.loads((options.folder / "rows.json").read_text())
        sizes = [int(size) for size in options.batch_sizes.split(",")]
        if options.side == "promptkit":
            found = score_with_promptkit(rows, options.folder, options.dtype)
        else:
            found = score_with_peer(rows, options.folder, options.dtype, sizes)
        print(json.dumps(found))
        return
    print(HEAD)
    for name in options.workloads.split(","):
        with TemporaryDirectory() as scratch:
            os.chdir(scratch)
            Path("templates/topic").mkdir(parents=True)
            Path("templates/topic/words.jinja").write_text(TOPICS)
            compare(name, options, Path(scratch) / "model")
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
