"""Several adapters on one base model: a pass for each, or one pass in which every row has its own adapter.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_adapters.py

CPU seconds of the forward passes, the least of some repeats that alternate, on one thread. The rows are packed as the
scorer packs them: many prompts in one long row. A mixed pass (peft's `adapter_names`) has that row once per adapter.
The last columns are what it takes to load one more adapter: from its files and its base model's, or onto a base model
that is there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from promptkit.adapters.loading import load_model, put_adapter, share_weights
from promptkit.models import Model
from promptkit.training import train

SHAPES = {"tiny": None, "576 x 12": {"hidden_size": 576, "num_hidden_layers": 12, "num_attention_heads": 9,
          "num_key_value_heads": 3, "intermediate_size": 1536}}  # fmt: skip
PAIRS = [{"prompt": "a", "completion": " b"}] * 2


def base_model(shape: dict[str, int] | None, folder: Path) -> Model:
    """Return the shipped model, or a random one of a shape, from a folder of its own."""
    tiny = load_model("tiny", device="cpu")
    if shape is None:
        return tiny
    config = LlamaConfig(**shape, vocab_size=len(tiny.tokenizer), tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tiny.tokenizer.save_pretrained(str(folder))
    return load_model(str(folder), device="cpu")


def add_adapters(model: Model, count: int) -> PeftModel:
    """Return the network with so many random adapters."""

    def config() -> LoraConfig:
        return LoraConfig(
            r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
        )

    network = get_peft_model(share_weights(model.network), config(), adapter_name="0")
    for number in range(1, count):
        network.add_adapter(str(number), config())
    return network.eval()


def measure(ways: dict[str, Callable[[], object]], repeats: int) -> list[float]:
    """Return the least CPU seconds of each of the ways, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.process_time()
            way()
            taken[name].append(time.process_time() - started)
    return [min(seconds) for seconds in taken.values()]


def compare_passes(network: PeftModel, count: int, tokens: int, repeats: int) -> list[float]:
    """Return the seconds of a pass per adapter and of one mixed pass, over one row of so many tokens."""
    ids = torch.randint(0, network.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0))

    def separate() -> torch.Tensor:
        found = []
        for number in range(count):
            network.set_adapter(str(number))
            found.append(network(ids, logits_to_keep=8).logits)
        return torch.cat(found)

    def mixed() -> torch.Tensor:
        names = [str(number) for number in range(count)]
        return network(ids.repeat(count, 1), adapter_names=names, logits_to_keep=8).logits

    with torch.no_grad():
        assert torch.allclose(separate(), mixed(), atol=1e-4)
        return measure({"separate": separate, "mixed": mixed}, repeats)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adapters", type=int, default=3)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for shape in asked.shape or SHAPES:
        with tempfile.TemporaryDirectory() as scratch:
            model = base_model(SHAPES[shape], Path(scratch) / "base")
            network = add_adapters(model, asked.adapters)
            for tokens in asked.tokens:
                separate, mixed = compare_passes(network, asked.adapters, tokens, asked.repeats)
                print(
                    f"{shape}, {tokens} tokens: separate {separate:.3f} s, mixed {mixed:.3f} s, {separate / mixed:.2f}",
                    flush=True,
                )
            out = train(model, PAIRS, epochs=1, out=Path(scratch) / "adapter").path
            ways = {
                "files": lambda out=out: load_model(str(out), device="cpu"),
                "put": lambda m=model, out=out: put_adapter(m, out),
            }
            files, put = measure(ways, asked.repeats)
            print(f"{shape}: loading from files {files:.2f} s, onto a loaded model {put:.2f} s", flush=True)


if __name__ == "__main__":
    main()
