"""Train the shipped model in one command: `python -m promptkit.models.recipe --data DIR --out DIR`."""

import time
from dataclasses import replace
from pathlib import Path

import click
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from promptkit.models.recipe.corpus import load_pools, load_problems
from promptkit.models.recipe.documents import Documents
from promptkit.models.recipe.network import NetworkSize, build_network, start_circuits, warm_vectors
from promptkit.models.recipe.pretraining import Material, Plan, Trainer, iterate_corpus, read_plan, save_model
from promptkit.models.recipe.tokenizer import label_words, save_tokenizer, train_tokenizer

STEPS_TO_MEASURE = 12
"""Steps after compiling whose speed turns minutes into a number of steps."""


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--minutes", type=float, default=100.0, show_default=True, help="Training time aimed at.")
@click.option("--steps", type=int, help="Number of steps, in place of --minutes; repeats a run exactly.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--layers", type=int, default=NetworkSize().layers, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
def main(
    data: Path,
    out: Path,
    minutes: float,
    steps: int | None,
    seed: int,
    threads: int,
    layers: int,
    resume: bool,
) -> None:
    """Train the embedded model from the data sets in DATA and write it to OUT."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pools = load_pools(data, seed=seed)
    writer = Documents(pools, load_problems(60_000, seed=seed + 1))
    material = Material(writer.practice, writer.problem, writer.classification)
    tokenizer = _tokenizer(writer, material, out, seed=seed, resume=resume)
    size = NetworkSize(layers=layers)
    network = build_network(tokenizer, size)
    if resume:
        trainer = Trainer(network, tokenizer, read_plan(out), device)
        trainer.load_checkpoint(out)
    else:
        vectors = warm_vectors(tokenizer, pools, size.width, seed=seed)
        network.get_input_embeddings().weight.data.copy_(vectors)
        start_circuits(network, seed=seed)
        plan = Plan(steps or 10**9, seed=seed)
        trainer = Trainer(network, tokenizer, plan, device)
        if steps is None:
            trainer.plan = replace(plan, steps=_measure_steps(trainer, material, minutes))
    click.echo(f"{trainer.plan}", err=True)
    trainer.train(material, out)
    save_model(network, tokenizer, out)


def _tokenizer(writer: Documents, material: Material, out: Path, *, seed: int, resume: bool) -> PreTrainedTokenizerFast:
    if resume:
        loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(out)
        return loaded
    own = [template.labels for templates in writer.shipped.values() for template in templates]
    own += [{label: label for label in pool.task.labels or ()} for pool in writer.pools]
    corpus = iterate_corpus(material, 60_000, seed=seed)
    tokenizer = train_tokenizer(corpus, label_words(own), window=NetworkSize().window)
    save_tokenizer(tokenizer, out)
    return tokenizer


def _measure_steps(trainer: Trainer, material: Material, minutes: float) -> int:
    """How many steps fit the minutes, from the speed of the first ones; the network is put back afterwards."""
    state = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.train_step(material.batch(trainer.tokenizer, trainer.plan, 0))
    started = time.monotonic()
    for step in range(STEPS_TO_MEASURE):
        trainer.train_step(material.batch(trainer.tokenizer, trainer.plan, step))
    seconds = (time.monotonic() - started) / STEPS_TO_MEASURE
    trainer.network.load_state_dict(state)
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
    return max(1, int(60 * minutes / (1.1 * seconds)))  # long rows take about half as long again


if __name__ == "__main__":
    main()
