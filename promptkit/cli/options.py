"""Define the options that several verbs share, and the types of their values."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from promptkit.adapters.card import BATCH_SIZE, EPOCHS, KINDS
from promptkit.data.labels import READINGS
from promptkit.data.local import DataFiles
from promptkit.errors import PromptkitError

Function = Callable[..., Any]


class NumberList(click.ParamType[tuple[int, ...]]):
    """A list of whole numbers: `4` or `0,4,16`."""

    name = "N[,N…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers; a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(dict.fromkeys(int(part) for part in str(value).split(",")))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 4 or 0,4,16", param, ctx)
        if max(found) > sys.maxsize:
            self.fail(f"{max(found)} is more than {sys.maxsize}", param, ctx)
        return found


class Words(click.ParamType[tuple[str, ...]]):
    """A list of words, separated by commas."""

    name = "NAME[,NAME…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words."""
        return value if isinstance(value, tuple) else tuple(part.strip() for part in str(value).split(","))


class NamedNumbers(click.ParamType[dict[str, int]]):
    """Numbers with names: `init=3,batch=4`."""

    name = "NAME=N[,NAME=N…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        """Return the numbers by name; a usage error for anything else."""
        if isinstance(value, dict):
            return value
        try:
            pairs = [part.partition("=") for part in str(value).split(",")]
            found = {name.strip(): int(number) for name, _, number in pairs}
        except ValueError:
            self.fail(f"{value!r} is not a list such as init=3,batch=4", param, ctx)
        if len(found) < len(pairs):
            self.fail(f"{value!r} names one source twice", param, ctx)
        return found


class SizeType(click.ParamType[int]):
    """An amount of memory: `2GB`, `512MiB` or a number of bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; a usage error for anything else."""
        from promptkit.costs.memory import parse_size

        try:
            return parse_size(value)
        except PromptkitError as error:
            self.fail(str(error), param, ctx)


class WholeNumber(click.ParamType[int]):
    """A whole number within limits; help leaves out what is a limit of machines and not of the setting."""

    name = "INTEGER"

    def __init__(self, smallest: int, largest: int = sys.maxsize) -> None:
        self.range = click.IntRange(smallest, largest)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; a usage error beyond the limits."""
        return self.range.convert(value, param, ctx)


def combine(*options: Function) -> Callable[[Function], Function]:
    """Return a decorator that adds all of these options, in their order."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def positive(name: str, help_: str, default: int | None = None) -> Function:
    """Return an option for a whole number above 0."""
    kind = WholeNumber(1, sys.maxsize)
    return click.option(name, type=kind, default=default, show_default=default is not None, help=help_)


def shots(default: int) -> Function:
    """Return the option for numbers of demonstrations."""
    return click.option(
        "-k",
        "--shots",
        type=NumberList(),
        default=str(default),
        show_default=True,
        help="Demonstrations per prompt; several numbers are each shown.",
    )


#: Whole numbers that every generator of random numbers takes.
SEEDS = WholeNumber(-(2**63), 2**63 - 1)
TASK = click.argument("task", default="reviews")
TRUST = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run the Python files that a model brings (auto_map): read them first.",
)
MODEL = combine(
    click.option("--model", default="tiny", show_default=True, help="A name, a hub id, a folder or an adapter folder."),
    TRUST,
)
DEVICE = click.option("--device", help="Where torch computes: cpu, cuda, cuda:1. Default: cuda where there is one.")
DTYPE = click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
TRAINED_DTYPE = click.option("--dtype", help="float32, bfloat16 or float16. Default: that of the training.")
TEMPLATE = click.option("--template", "templates", multiple=True, help="A template's name or glob; may be repeated.")
READ = (
    click.option(
        "--delimiter",
        help="What stands between the cells of CSV and TSV: one character, or tab. Default: what the header shows.",
    ),
    click.option(
        "--quoting/--no-quoting",
        default=None,
        help="Whether a cell in double quotes may hold delimiters and line breaks. Default: in CSV, not in TSV.",
    ),
    click.option(
        "--labels-are",
        type=click.Choice(list(READINGS)),
        help="How labels are read, where the data leave it open. Default: what the task file says.",
    ),
)


def DATA(function: Function) -> Function:  # noqa: N802 - used as the options are
    """Add `--data` and how it is read; the function gets both as `data`."""

    @functools.wraps(function)
    def take(*args: Any, delimiter: str | None, quoting: bool | None, labels_are: Any, **given: Any) -> Any:
        data = given["data"]
        for name, value in (("--delimiter", delimiter), ("--quoting", quoting), ("--labels-are", labels_are)):
            if data is None and value is not None:
                raise click.UsageError(f"{name} goes with --data; of a task's own source its task file says it")
        if data is not None:
            given["data"] = DataFiles(data, delimiter, quoting, labels_are)
        return function(*args, **given)

    data = click.option(
        "--data",
        type=click.Path(),
        help="Local JSONL, JSON, CSV, TSV or Parquet in place of the task's source: a file, or a folder with one file "
        "per split.",
    )
    return combine(data, *READ)(take)


SEED = click.option("--seed", type=SEEDS, default=0, show_default=True, help="Seed of every draw and shuffle.")
SEED_FOR = click.option(
    "--seed-for",
    "seeds",
    type=NamedNumbers(),
    help="Other seeds for single sources: data, template, init, batch, order, dropout.",
)
SPLIT = click.option("--split", default="test", show_default=True, help="The split to take queries from.")
CHAT = click.option(
    "--chat/--plain",
    default=False,
    help="Render through the tokenizer's chat template, or as plain text (the default).",
)
SYSTEM = click.option(
    "--system",
    type=click.Choice(["system", "user"]),
    default="system",
    show_default=True,
    help="With --chat: the turn that holds the instruction, its own or the first user's.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout and nothing else.")
SELECTION = click.option("--selection", help="How demonstrations are chosen; see `promptkit list selections`.")
ORDER = click.option("--order", help="Their sequence: see `promptkit list orders`, or the number of a permutation.")
BATCH = click.option("--batch-tokens", type=WholeNumber(1), help="Tokens in one forward pass at most.")
MEMORY = click.option(
    "--memory",
    type=SizeType(),
    help="What scoring may take beside the weights, such as 2GB or 512MiB. Default: half of what is free.",
)
OVERLONG = click.option(
    "--overlong",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="Prompts beyond the window: refuse them, or drop whole demonstrations and count.",
)
OVERLONG_OR_SKIP = click.option(
    "--overlong",
    type=click.Choice(["error", "drop", "skip"]),
    help="Prompts beyond the window: refuse them, drop whole demonstrations and count, or leave that number of "
    "demonstrations out and say so. Default: skip with --train-sizes, else error.",
)
CALIBRATE = click.option(
    "--calibrate",
    type=Words(),
    default=(),
    help="Beside the sum: token, byte, first, pmi, contextual, domain, batch, or all; see docs/scoring.md.",
)
SAMPLING = (
    positive("--samples", "Texts drawn wherever the model writes; their answers vote. 1: the most likely text.", 1),
    click.option("--temperature", type=float, help="With several samples: of the draws. Default: 0.7."),
    click.option("--top-p", type=float, help="With several samples: the share of likely tokens to draw. Default: 1."),
)
OUT_RUN = click.option("--out", type=click.Path(), help="The run folder. Default: one in runs, by task and settings.")
TRAIN_LIMIT = positive("--train-limit", "Training records (and pool for demonstrations) after a seeded shuffle.", 512)
#: How an adapter is trained: the same in train, compare and study.
TRAINING = (
    click.option(
        "--adapter-kind",
        "kind",
        type=click.Choice(KINDS),
        default="lora",
        show_default=True,
        help="See docs/training.md.",
    ),
    positive("--rank", "Rank of the adapter. Default: 8."),
    positive("--alpha", "Its scale. Default: 2 x rank."),
    click.option("--dropout", type=float, default=0.0, help="On the adapter's input. Default: none."),
    click.option("--targets", type=Words(), help="Layers to adapt, such as q_proj,v_proj. Default: all but the head."),
    positive("--top-layers", "Adapt so many layers below the output. Default: all."),
    positive("--epochs", "Passes over the training records.", EPOCHS),
    positive("--batch-size", "Rows per step.", BATCH_SIZE),
    positive("--micro-batch", "Rows computed at once, to save memory. Default: all of a step."),
    click.option("--checkpointing", is_flag=True, help="Compute activations twice, to save memory."),
    click.option("--learning-rate", type=float, help="Default: by the width of the model."),
)
