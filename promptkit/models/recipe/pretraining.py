"""Train the shipped model: the loop, its schedule, its checkpoints."""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from promptkit.models.recipe.document_packing import DocumentBatch, pack_batch
from promptkit.models.recipe.documents import Document
from promptkit.models.recipe.optimizer import make_optimizers

Draw = Callable[[random.Random], Document]


@dataclass(frozen=True, slots=True)
class TrainingStage:
    """What training shows from its step `first` on.

    `reasoning` is the share of the rows that hold word problems, `drills` the share of those documents that are bare
    arithmetic. Long rows come in every `long_every`-th step (0: never), so that positions up to their length are
    trained.
    """

    first: int
    reasoning: float
    drills: float
    long_every: int


STAGES = (
    TrainingStage(0, 0.3, 0.15, 0),
    TrainingStage(450, 0.45, 0.15, 3),
    TrainingStage(750, 0.45, 0.45, 3),
    TrainingStage(1_150, 0.3, 0.2, 3),
)
"""Classification first, since it is learned first; then arithmetic, and the full length."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train and on what shapes.

    `steps` of one batch each; `dense`, `short` and `long` are (rows, tokens per row). The first `practice` steps show
    dense rows of words and arbitrary labels and nothing else. The learning rates rise for `warm_up` steps, are
    constant up to the share `constant` of all steps and fall linearly to 3 %.
    """

    steps: int
    seed: int = 0
    stages: tuple[TrainingStage, ...] = STAGES
    dense: tuple[int, int] = (32, 64)
    short: tuple[int, int] = (16, 256)
    long: tuple[int, int] = (5, 768)
    warm_up: int = 40
    constant: float = 0.5
    practice: int = 250
    checkpoint_every: int = 25
    compiled: bool = True

    def stage(self, step: int) -> TrainingStage:
        """The stage that this step is in."""
        return next(stage for stage in reversed(self.stages) if stage.first <= step)

    def shape(self, step: int) -> tuple[int, int]:
        """(rows, tokens per row) of this step."""
        if step < self.practice:
            return self.dense
        every = self.stage(step).long_every
        return self.long if every and step % every == 0 else self.short

    def problem_rows(self, step: int) -> int:
        """How many of the step's rows hold word problems; they come first."""
        return 0 if step < self.practice else round(self.shape(step)[0] * self.stage(step).reasoning)

    def rate(self, step: int) -> float:
        """The factor on the learning rates: linear warm-up, constant, linear down to 3 %."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = step / self.steps
        return 1.0 if done < self.constant else max(0.03, 1 - 0.97 * (done - self.constant) / (1 - self.constant))


@dataclass(frozen=True, slots=True)
class Material:
    """Where documents come from: called with a random source, the row length in tokens, problems with their drills."""

    practice: Callable[[random.Random, int], Document]
    problem: Callable[[random.Random, int, float], Document]
    classification: Callable[[random.Random, int], Document]

    def batch(self, tokenizer: PreTrainedTokenizerFast, plan: Plan, step: int) -> DocumentBatch:
        """The batch of this step, a function of seed and step alone; rows with word problems come first."""
        rng = random.Random(f"{plan.seed}:{step}")
        rows, length = plan.shape(step)
        problems = plan.problem_rows(step)
        drills = plan.stage(step).drills

        def pack(draw: Callable[[random.Random], Document], rows: int) -> DocumentBatch:
            return pack_batch(tokenizer.backend_tokenizer, draw, rng, rows=rows, length=length)

        if step < plan.practice:
            return pack(lambda rng: self.practice(rng, length), rows)
        first = pack(lambda rng: self.problem(rng, length, drills), problems)
        second = pack(lambda rng: self.classification(rng, length), rows - problems)
        return DocumentBatch(np.concatenate([first.ids, second.ids]), np.concatenate([first.weights, second.weights]))


class Trainer:
    """A network in training: its optimizers and the step it has reached."""

    def __init__(self, network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, plan: Plan, device: str) -> None:
        torch.manual_seed(plan.seed)
        self.network = network.to(device)
        self.tokenizer = tokenizer
        self.plan = plan
        self.device = device
        self.optimizers = make_optimizers(network)
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step = 0
        self.body = torch.compile(network.model, dynamic=False) if plan.compiled else network.model

    def train(self, material: Material, folder: Path, *, stop_at: int | None = None) -> None:
        """Train to the plan's last step, or to step `stop_at`; writes `checkpoint.pt` and `training.jsonl`."""
        started, tokens = time.monotonic(), 0
        while self.step < min(self.plan.steps, stop_at or self.plan.steps):
            batch = material.batch(self.tokenizer, self.plan, self.step)
            losses = self.train_step(batch)
            tokens += batch.ids.size
            self.step += 1
            if self.step % 20 == 0 or self.step == self.plan.steps:
                _log(
                    folder,
                    {"step": self.step, "tokens": tokens, "seconds": time.monotonic() - started} | losses,
                )
            if self.step % self.plan.checkpoint_every == 0 or self.step in (self.plan.steps, stop_at):
                self.save_checkpoint(folder)

    def train_step(self, batch: DocumentBatch) -> dict[str, float]:
        """One update; returns the loss and the mean loss of answers, in nats, for problems and classification."""
        factor = self.plan.rate(self.step)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        loss, figures = self._loss(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.network.zero_grad()
        return figures

    def _loss(self, batch: DocumentBatch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy at the weighted tokens only; the head is not run on the others."""
        ids = torch.from_numpy(batch.ids).to(self.device)
        weights = torch.from_numpy(batch.weights).to(self.device)
        rows, positions = weights.nonzero(as_tuple=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device == "cuda"):
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
            logits = self.network.lm_head(hidden[rows, positions - 1]).float()
        nats = cross_entropy(logits, ids[rows, positions], reduction="none")
        counted = weights[rows, positions]
        loss = (nats * counted).sum() / counted.sum()
        is_answer = counted >= 0.3 * weights.amax(1)[rows]
        is_problem = rows < self.plan.problem_rows(self.step)
        kinds = {"problems": nats[is_answer & is_problem], "classification": nats[is_answer & ~is_problem]}
        means = {name: values.mean().item() for name, values in kinds.items() if len(values)}
        return loss, {"loss": loss.item()} | means

    def save_checkpoint(self, folder: Path) -> None:
        """Write everything that the next step depends on, whole or not at all."""
        state = {
            "step": self.step,
            "plan": asdict(self.plan),
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        unfinished = folder / "checkpoint.pt.new"
        torch.save(state, unfinished)
        unfinished.replace(folder / "checkpoint.pt")

    def load_checkpoint(self, folder: Path) -> None:
        """Go on where a checkpoint stopped; the rest of the run is what it would have been without the break."""
        state = torch.load(folder / "checkpoint.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]


def read_plan(folder: Path) -> Plan:
    """The plan of the run whose checkpoint is in the folder."""
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    stages = tuple(TrainingStage(**stage) for stage in state["plan"]["stages"])
    return Plan(**{**state["plan"], "stages": stages})


def save_model(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write what `AutoModelForCausalLM` and `AutoTokenizer` load: bfloat16 safetensors, configs, tokenizer."""
    network.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _log(folder: Path, figures: dict[str, float]) -> None:
    line = json.dumps({name: round(value, 4) for name, value in figures.items()})
    print(line, flush=True)
    with (folder / "training.jsonl").open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")


def iterate_corpus(material: Material, documents: int, *, seed: int) -> Iterator[str]:
    """Texts for the tokenizer: documents as training draws them."""
    for number in range(documents):
        rng = random.Random(f"corpus:{seed}:{number}")
        document = material.problem(rng, 256, 0.15) if number % 4 == 0 else material.classification(rng, 256)
        yield "".join(piece.text for piece in document)
