"""Run a training: settings, seeds, Trainer, and what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy
import torch
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from promptkit._version import __version__
from promptkit.adapters.card import (
    BATCH_SIZE,
    EPOCHS,
    Adapter,
    AdapterCard,
    TrainResult,
    TrainSettings,
    check_kind,
    refuse_existing,
    write_adapter,
)
from promptkit.adapters.reference_outputs import (
    PROBES,
    check_choices,
    hash_tokenizer,
    installed_versions,
    record_reference_outputs,
)
from promptkit.data.splits import describe_unlearned
from promptkit.errors import TrainError
from promptkit.prompts.prompt import TURN, check_system, message_rows
from promptkit.storage.libraries import quiet_transformers, versions
from promptkit.training.batches import TokenRow, encode_pairs, read_pairs
from promptkit.training.checkpoints import Checkpoints, find_result, kept_state, last_checkpoint, may_have_result
from promptkit.training.collation import Collation, choose_collation
from promptkit.training.lora import default_learning_rate, wrap
from promptkit.training.peft_configs import (
    ALL_LINEAR,
    default_alpha,
    default_rank,
    default_targets,
    first_weights,
    plain_weights,
)
from promptkit.training.processes import as_the_first, join_processes
from promptkit.training.trackers import trackers
from promptkit.training.trainer import AdapterTrainer, part_size, parts_per_batch
from promptkit.training.validation import Steps, TrainingHistory, Validation, read_labelled

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback

    from promptkit.models import Model
    from promptkit.prompts.pair import Pair
    from promptkit.prompts.prompt import Prompt


def train(
    model: Model,
    pairs: Iterable[Pair | Mapping[str, Any]],
    *,
    kind: str = "lora",
    rank: int | None = None,
    alpha: int | None = None,
    dropout: float = 0.0,
    targets: str | Sequence[str] | None = None,
    top_layers: int | None = None,
    learning_rate: float | None = None,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    micro_batch: int | None = None,
    checkpointing: bool = False,
    seed: int = 0,
    seeds: Mapping[str, int] | None = None,
    validation: Sequence[Prompt | Mapping[str, Any]] | None = None,
    metric: str = "accuracy",
    patience: int = 2,
    chat: bool = False,
    system: str = "system",
    out: str | Path | None = None,
    save_seconds: float | None = None,
    report_to: str | Sequence[str] | None = None,
    probes: int = PROBES,
    one_file: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Adapter:
    """Train an adapter on pairs and return it, saved as a folder that `load_model` and plain peft load.

    The loss is the mean over pairs of the mean negative log-likelihood (nats) of a completion's tokens. `kind` is
    lora, rslora, dora, pissa or ia3. Left out, `rank` is 8, `alpha` 2 x rank (16 for rslora), `targets` all linear
    layers but the head (for ia3 those that peft names), `top_layers` all layers, and `learning_rate`
    `default_learning_rate`; it warms up over the first tenth of the steps, then falls to zero. At most
    `micro_batch` rows of a batch are computed at once, and `checkpointing` computes activations twice instead of
    keeping them: both save memory and leave the gradient as it is, but for rounding.

    `seed` decides whatever is left to chance: on one CPU the same seed gives the same bytes. `seeds` gives single
    sources a seed of their own: init, batch, order, dropout (see `Seeds`). `model` and the global random state are
    left as they were.

    With `validation` prompts, their `metric` (accuracy or macro_f1) is taken after every epoch, by promptkit's scorer;
    the weights of the best epoch, the earlier of equals, are kept, and training ends after `patience` epochs
    without a new best. `out` is a folder that does not exist yet; None makes one in the system's temporary
    folder. With `save_seconds` the state of the training is kept beside it, in `out`.part, every so many seconds; after
    a kill the same call goes on from there and ends with the same bytes. `report_to` names trackers: tensorboard,
    wandb, mlflow.

    `system` "user" puts the instruction of chat turns in front of the first user's content, and the card keeps that.
    So many of the rows are kept in the adapter's card as `probes`, texts and scores, and asked again when it is
    loaded elsewhere or merged; 0 keeps none. `one_file` is the hash of the file of which the pairs are a half, for the
    card. `progress` is called with (steps done, steps in all).

    Raises DataError for a malformed row; TrainError for a setting out of range, a pair longer than the
    window, a loss that is not finite; RunError where `out` exists already or cannot be written, and where `out`.part
    holds another training.
    """
    started = time.perf_counter()
    check_kind(kind, rank, alpha, dropout)
    if probes < 0:
        raise TrainError(f"training: probes is {probes}: expected how many rows are kept to be asked, 0 or more")
    settings = TrainSettings.checked(
        kind=kind,
        rank=default_rank(kind) if rank is None else rank,
        alpha=default_alpha(kind, rank) if alpha is None else alpha,
        dropout=dropout,
        targets=default_targets(model.network, kind) if targets is None else _names(targets),
        top_layers=top_layers,
        learning_rate=default_learning_rate(model.network, kind) if learning_rate is None else learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch=micro_batch,
        checkpointing=checkpointing,
        processes=join_processes(model.device),
        seed=seed,
        seeds=seeds,
        metric=metric,
        patience=patience,
        chat=chat,
        system=system,
        join=TURN if chat else "",
    )
    check_system(system, chat=chat)
    folder = None if out is None else Path(out)
    if folder and not may_have_result(folder):
        refuse_existing(folder)
    callbacks = trackers(report_to, folder)
    pairs_read = read_pairs(pairs, chat=chat, system=system)
    prompts = None
    if validation is not None:
        prompts = read_labelled(model, validation, chat=chat, system=system, metric=metric)
    rows = encode_pairs(model, pairs_read, chat=chat)
    check_choices(model, pairs_read, chat=chat)

    def tell(path: Path, result: TrainResult, tokens: int, flops: float) -> Adapter:
        """Return what came of the training; its validation computed so many tokens with so many FLOPs."""
        return Adapter(
            path=path,
            validation_tokens=tokens,
            validation_flops=flops,
            metric=metric,
            notes=tuple(_note_unlearned(pairs_read)),
            seconds=time.perf_counter() - started,
            **result.model_dump(exclude={"pairs_hash"}),
        )

    identity = _identity(model, pairs_read, prompts, settings)
    if folder and (card := as_the_first(lambda: find_result(folder, identity))):
        return tell(folder, card.train, 0, 0.0)
    with _state_folder(folder, save_seconds, identity) as state:
        with _seeded(settings.seeds.init):
            network = wrap(model, settings)
            first = first_weights(network)
            validator = Validation(replace(model, network=network), prompts, settings)
            callbacks = [validator, *callbacks, *([Steps(progress)] if progress else [])]
            if save_seconds is not None:
                callbacks.append(Checkpoints(validator, save_seconds))
            collation = choose_collation(validator.model, rows, part_size(settings))
            _fit(network, rows, settings, validator, callbacks, state, collation)
        network.eval()
        result = _result(rows, pairs_read, validator.history, collation)
        path = as_the_first(
            lambda: write_adapter(
                network,
                folder,
                _card(validator.model, pairs_read, settings, result, probes, one_file),
                plain_weights(network, first),
            )
        )
    return tell(path, result, validator.history.tokens, validator.history.flops)


def _names(targets: str | Sequence[str]) -> str | tuple[str, ...]:
    if isinstance(targets, str):
        return targets
    if not isinstance(targets, Sequence) or not all(isinstance(name, str) for name in targets):
        raise TrainError(f"training: targets is {targets!r}: expected names of layers, or {ALL_LINEAR!r}")
    return targets[0] if tuple(targets) == (ALL_LINEAR,) else tuple(targets)


@contextmanager
def _state_folder(out: Path | None, save_seconds: float | None, what: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder that Trainer may write to: one that outlives a kill, or one that nobody sees."""
    if save_seconds is None:
        with TemporaryDirectory(prefix="promptkit-") as scratch:
            yield Path(scratch)
        return
    if out is None:
        raise TrainError("training: a state to go on from (save_seconds) is kept beside `out`: give that too")
    with kept_state(out, what) as folder:
        yield folder


def _fit(
    network: PeftModel,
    rows: Sequence[TokenRow],
    settings: TrainSettings,
    validator: Validation,
    callbacks: Sequence[TrainerCallback],
    state: Path,
    collation: Collation,
) -> None:
    """Run Trainer, in silence, from the start or from the last checkpoint in `state`."""
    arguments = TrainingArguments(
        output_dir=str(state),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=part_size(settings),
        gradient_accumulation_steps=parts_per_batch(settings),
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,  # below 1 it is a share of all steps
        activation_checkpointing=settings.checkpointing,
        seed=settings.seeds.dropout,
        use_cpu=validator.model.device == "cpu",
        save_strategy="no",
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=0.01,  # below 1 it is a share of all steps
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )
    if settings.processes == 1:
        arguments._n_gpu = 1  # else Trainer splits batches over all GPUs of the machine by itself
    trainer = AdapterTrainer(
        model=network,
        args=arguments,
        train_dataset=rows,
        data_collator=collation.collate,
        callbacks=list(callbacks),
        settings=settings,
    )
    trainer.remove_callback(PrinterCallback)
    validator.trainer = trainer
    checkpoint = last_checkpoint(state)
    if checkpoint:
        validator.load(checkpoint)
    with quiet_transformers():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global randomness, with gradients on; then put all back as it was."""
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)


def _identity(
    model: Model, pairs_read: Sequence[Pair], validation: Sequence[Prompt] | None, settings: TrainSettings
) -> dict[str, Any]:
    """Return all that the adapter's bytes depend on, as JSON."""
    return {
        "settings": settings.model_dump(mode="json"),
        "model": model.name,
        "model_hash": model.hash,
        "dtype": model.dtype,
        "device": model.device.partition(":")[0],
        "pairs": _hash_pairs(pairs_read),
        "validation": sha256(repr(validation).encode()).hexdigest(),
        "versions": versions(),
    }


def _hash_pairs(pairs_read: Sequence[Pair]) -> str:
    digest = sha256()
    for pair in pairs_read:
        said = (pair.prompt, pair.completion, message_rows(pair.messages), pair.choices)
        digest.update(repr(said).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _result(
    rows: Sequence[TokenRow], pairs_read: Sequence[Pair], history: TrainingHistory, collation: Collation
) -> TrainResult:
    epochs = len(history.losses)
    return TrainResult(
        rows=len(rows),
        pairs_hash=_hash_pairs(pairs_read),
        epochs=epochs,
        best_epoch=history.best_epoch,
        losses=tuple(history.losses),
        validation=tuple(history.validation),
        tokens_trained=epochs * sum(row.length for row in rows),
        targets_trained=epochs * sum(row.targets for row in rows),
        spanning=sum(row.spans for row in rows),
        padded=collation.padded,
    )


def _card(
    model: Model,
    pairs_read: Sequence[Pair],
    settings: TrainSettings,
    result: TrainResult,
    probes: int,
    one_file: str | None,
) -> AdapterCard:
    """Return the card of an adapter; `model` has it around its network."""
    choices = {pair.choices for pair in pairs_read}
    return AdapterCard(
        base_model=model.name,
        base_hash=model.hash,
        base_files=dict(model.files),
        dtype=model.dtype,
        task=_only({pair.task for pair in pairs_read}),
        template=_only({pair.template for pair in pairs_read}),
        template_hash=_only({pair.template_hash for pair in pairs_read}),
        labels=next(iter(choices)) or None if len(choices) == 1 else None,
        settings=settings,
        train=result,
        versions={"promptkit": __version__, **installed_versions()},
        task_hash=_only({pair.task_hash for pair in pairs_read}),
        tokenizer_hash=hash_tokenizer(model.tokenizer),
        demonstrations=max(len(pair.demonstration_ids) for pair in pairs_read),
        one_file=one_file,
        probes=record_reference_outputs(model, pairs_read, chat=settings.chat, count=probes),
    )


def _note_unlearned(pairs_read: Sequence[Pair]) -> list[str]:
    """Return a warning of the choices that no pair teaches, where all pairs have the same and each teaches one."""
    first, *others = {pair.choices for pair in pairs_read}
    taught = {next(filter(pair.completion.endswith, pair.choices), "") for pair in pairs_read}
    missing = [choice.strip() for choice in first if choice not in taught]
    return [] if others or "" in taught or not missing else [describe_unlearned("training rows", missing)]


def _only(names: set[str]) -> str:
    return ", ".join(sorted(names))
