"""Build prompts or training pairs for every record of a split.

Rows are rendered one by one and gathered in batches, so that a split larger than memory streams.
"""

from __future__ import annotations

import gc
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from promptkit.data.local import Data
from promptkit.data.record import Record
from promptkit.data.records import (
    check_limit,
    describe_source,
    is_one_file,
    iterate_records,
    load_records,
    sample_records,
)
from promptkit.data.splits import describe_missing, is_cut, iterate_half, leave_out_tested, note_unlearned
from promptkit.data.tasks import Task, load_task
from promptkit.demonstrations import Draw, Embed, Probabilities, Selector
from promptkit.demonstrations.orders import goes_by_nearness, order_demonstrations
from promptkit.errors import DataError, PromptkitWarning
from promptkit.prompts.pair import pair_table
from promptkit.prompts.prompt import Prompt, build_prompt, check_system, prompt_row
from promptkit.storage.files import rows_to_table
from promptkit.templating.binding import bind_one
from promptkit.templating.template import BoundTemplate, Template, is_glob

if TYPE_CHECKING:
    import datasets
    import pyarrow

    from promptkit.building import Mixture, TrainingSet

Item = TypeVar("Item")
#: One or several templates, their names or paths, or name -> weight.
Templates: TypeAlias = "Template | str | Path | Sequence[Template | str | Path] | Mapping[str, float] | None"
Rows = Iterator[dict[str, Any]]
#: The settings of pairs that are no more than one split in one template.
PLAIN = frozenset({"split", "limit", "seed", "data", "chat", "system"})
#: Rows gathered before they become one Arrow batch.
BATCH_ROWS = 10_000


class Demonstrations:
    """A draw over a pool: gives every query its demonstrations, chosen and in sequence."""

    def __init__(
        self,
        pool: Iterable[Record],
        draw: Draw,
        *,
        embed: Embed | None = None,
        probabilities: Probabilities | None = None,
    ) -> None:
        self.draw = draw
        self.selector = Selector(tuple(pool), draw.selection, draw.seed, embed=embed, probabilities=probabilities)

    def __call__(self, query: Record, k: int, keep: int | None = None) -> tuple[Record, ...]:
        """Return the k demonstrations of `query`; raises SelectionError where the pool has too few.

        With `keep`, those selected after the first `keep` are dropped from the sequence that k make.
        """
        chosen = self.selector.select(query, k)
        near = self.selector.nearness(query, chosen) if k > 1 and goes_by_nearness(self.draw.order) else None
        ordered = order_demonstrations(chosen, self.draw.order, seed=self.draw.order_seed, near=near)
        kept = {id(record) for record in chosen[:keep]}  # records may share a name
        return tuple(record for record in ordered if id(record) in kept)


def no_demonstrations(query: Record, k: int) -> tuple[Record, ...]:
    """Return none: zero-shot."""
    return ()


def default_selection(task: Task) -> str:
    """Return `balanced` where the task has fixed labels to balance, else `random`."""
    return "balanced" if task.labels else "random"


def warn_missing(task: Task, pool: Sequence[Record]) -> None:
    """Warn where a label of the task has no record that could be shown."""
    if missing := describe_missing(task, pool):
        warnings.warn(missing, PromptkitWarning, stacklevel=3)


def render_prompts(
    bound: BoundTemplate,
    queries: Iterable[Record],
    demonstrations: Callable[[Record, int], tuple[Record, ...]] = no_demonstrations,
    k: int = 0,
    *,
    chat: bool = False,
) -> Iterator[Prompt]:
    """Yield the prompt of every query, each with its own k demonstrations."""
    for query in queries:
        yield build_prompt(bound, query, demonstrations(query, k), chat=chat)


def iterate_prompts(
    task: Task | str,
    template: Template | str,
    *,
    k: int = 0,
    selection: str | None = None,
    order: str | int = "given",
    seed: int = 0,
    order_seed: int | None = None,
    split: str | None = None,
    pool_split: str | None = None,
    limit: int | None = None,
    train_limit: int | None = None,
    data: Data | None = None,
    chat: bool = False,
    system: str = "system",
    embed: Embed | None = None,
    probabilities: Probabilities | None = None,
) -> Iterator[Prompt]:
    """Yield the prompts of a split; the arguments are those of `build_prompts`."""
    check_system(system, chat=chat)
    task, bound = bind_one(task, template, system)
    show: Callable[[Record, int], tuple[Record, ...]] = no_demonstrations
    if k:
        pool = take_pool(task, split, pool_split, data=data, seed=seed, limit=train_limit)
        draw = Draw(selection or default_selection(task), order, seed, seed if order_seed is None else order_seed)
        show = Demonstrations(pool, draw, embed=embed, probabilities=probabilities)
    queries = take_records(task, split, "test", limit, seed, data, labelled=False)
    yield from render_prompts(bound, queries, show, k, chat=chat)


def iterate_pairs(task: Task | Mixture | str | Path, template: Templates = None, **settings: Any) -> Rows:
    """Yield the training pairs of a split as rows; the arguments are those of `build_pairs`."""
    tables = _plain_tables(task, template, settings)
    if tables is None:
        from promptkit.building import make_set

        yield from make_set(task, template, **settings).rows()
        return
    for table in tables:
        yield from table.to_pylist()


def build_prompts(
    task: Task | str, template: Template | str, *, streaming: bool = False, **settings: Any
) -> datasets.Dataset | datasets.IterableDataset:
    """Return one prompt per record of a split, with its choices and where it came from.

    Keyword arguments: `k` demonstrations per prompt (0), their `selection` ("balanced" where the task
    has fixed labels, else "random"; see docs/demonstrations.md), `order` ("given", another name of
    `promptkit.demonstrations.orders.ORDERS` or the number of a permutation), `seed` and `order_seed` (as `seed` unless
    given), `split` ("test") of the queries, `pool_split` ("train") of the demonstrations, `limit`
    queries and `train_limit` pool records after a shuffle by `seed`, `data` (local files or rows in
    memory in place of the task's source, see docs/tasks.md; one file is cut in two, and is the whole of a
    split that is named), `chat` (adds `messages`), `system` ("system"; "user" puts the instruction into the first user
    turn), `embed` and `probabilities` (what a selection may ask a model, see `promptkit.demonstrations.Selector`). With
    `streaming` the rows are rendered as they are read and nothing is kept.

    Columns: id, prompt, choices, label (index, or text where the answer is free), demonstration_ids,
    template, template_hash, task; messages with `chat`; generation {stop, max_tokens, answer} where the
    model must write before it can be scored. Raises TaskError, TemplateError, DataError, SelectionError.
    """
    if streaming:
        return _stream(_prompt_rows, task=task, template=template, settings=settings)
    return _gather(rows_to_table(batch) for batch in _batches(_prompt_rows(task, template, settings)))


def _prompt_rows(task: Task | str, template: Template | str, settings: Mapping[str, Any]) -> Rows:
    return map(prompt_row, iterate_prompts(task, template, **settings))


def build_pairs(
    task: Task | Mixture | str | Path,
    template: Templates = None,
    *,
    streaming: bool = False,
    num_shards: int = 1,
    **settings: Any,
) -> datasets.Dataset | datasets.IterableDataset:
    """Return training pairs: by default one zero-shot pair per labelled record of a split.

    `task` may be a mixture, or the path of its TOML file, which names its templates itself; else `template` is one or
    several templates or their names (every record in each of them), or name -> weight (one drawn for every row).

    Keyword arguments: `split` ("train"), `limit` records after a shuffle by `seed` (0), `data` (local files or
    rows in memory in place of the task's source, see docs/tasks.md; one file is cut in two, and is the whole of a split
    that is named), `chat` (adds `messages`) and `system` (as there);
    `epochs` (1), `per_record` templates drawn for a record, `k` demonstrations or several numbers of them, their
    `selection`, `order` and `train_limit`, `labels` (wordings: "own", words, "swapped", "random", one or several, or
    name -> weight), `balance`, `hold_out`, `copies` ("near", "exact", "keep": what is left out; "keep" where nothing is
    given but one template, `split`, `limit`, `seed`, `data`, `chat`, `system`, else "near"): see docs/building.md. With
    a mixture, those of `promptkit.building.Mixture` in place of what its file says. With `streaming` nothing is kept,
    and the rows can be rendered by `num_shards` workers.

    Columns: id, prompt, completion (rationale, if the template has one, and target), label, choices (empty
    where the answer is free), demonstration_ids, template, template_hash, task, task_hash; messages with `chat`; epoch,
    repeat and wording where they can differ. Raises TaskError, TemplateError, DataError and SelectionError.
    """
    if num_shards < 1:
        raise DataError(f"num_shards is {num_shards}: expected 1 or more, by how many workers the rows are shared")
    tables = _plain_tables(task, template, settings)
    if tables is not None and num_shards == 1:
        if streaming:
            return _stream(_pair_rows, task=task, template=template, settings=settings)
        pairs = _gather(tables)
        assert isinstance(task, Task | str)
        task = task if isinstance(task, Task) else load_task(task)
        for note in note_unlearned(task, [pairs.data["label"].to_pylist()]):
            warnings.warn(note.removeprefix("warning: "), PromptkitWarning, stacklevel=2)
        return pairs
    from promptkit.building import make_set

    made = make_set(task, template, **settings)
    for note in made.note_unlearned():
        warnings.warn(note.removeprefix("warning: "), PromptkitWarning, stacklevel=2)
    if not streaming:
        return _gather(rows_to_table(batch) for batch in _batches(made.rows()))
    return _stream(_share_rows, made=made, count=num_shards, shares=list(range(num_shards)))


def _pair_rows(task: Task | str, template: Template | str, settings: Mapping[str, Any]) -> Rows:
    return iterate_pairs(task, template, **settings)


def _share_rows(made: TrainingSet, count: int, shares: list[int]) -> Rows:
    for share in shares:
        yield from made.rows(share, count)


def name_templates(templates: Any) -> Any:
    """Return templates with the names of those that are given by path."""
    if isinstance(templates, list | tuple):
        return [name_templates(each) for each in templates]
    return str(templates) if isinstance(templates, Path) else templates


def is_plain(template: object, settings: Mapping[str, Any]) -> bool:
    """Whether no more is asked for than one split in one template: its rows are those of the data, none left out."""
    whole = not is_cut(settings.get("data"), settings.get("split"))
    template = name_templates(template)
    one = isinstance(template, Template) or (isinstance(template, str) and not is_glob(template))
    return one and settings.keys() <= PLAIN and whole


def _plain_tables(task: object, template: Any, settings: Mapping[str, Any]) -> Iterator[pyarrow.Table] | None:
    """Return the pairs in batches where they are plain, else None."""
    if isinstance(task, Task | str) and is_plain(template, settings):
        from promptkit.building import is_mixture

        if isinstance(task, str) and is_mixture(task):
            return None
        return _pair_tables(task, template, **settings)
    return None


def take_pool(
    task: Task,
    split: str | None,
    pool_split: str | None = None,
    *,
    data: Data | None,
    seed: int,
    limit: int | None = None,
) -> tuple[Record, ...]:
    """Return what demonstrations are drawn from, for queries of `split`: without copies of these, with a note of them.

    Labels that none of it has are told, too.
    """
    pool = tuple(take_records(task, pool_split, "train", None, seed, data, labelled=True))
    if split != (pool_split or "train") and not (data is not None and is_one_file(data) and split):
        tested = take_records(task, split, "test", None, seed, data, labelled=False)
        pool = leave_out_tested(pool, tuple(tested), split or "test")
    if limit is not None:
        pool = tuple(sample_records(pool, check_limit(limit), seed=seed))
    warn_missing(task, pool)
    return pool


def take_records(
    task: Task, split: str | None, usual: str, limit: int | None, seed: int, data: Data | None, *, labelled: bool
) -> Iterable[Record]:
    """Return the records of a split, `usual` where none is named; of one file for all splits its half then."""
    if data is not None and is_cut(data, split):
        half = iterate_half(task, data, tested=usual == "test", labelled=labelled)
        return half if limit is None else sample_records(half, check_limit(limit), seed=seed)
    split = split or usual
    if limit is None:
        return _some(iterate_records(task, split, data=data, labelled=labelled), task, split, data)
    return load_records(task, split, data=data, limit=limit, seed=seed, labelled=labelled)


def _some(records: Iterable[Record], task: Task, split: str, data: Data | None) -> Iterator[Record]:
    """Yield the records; raise DataError where there are none."""
    record = None
    for record in records:
        yield record
    if record is None:
        raise DataError(f"split {split!r} of task {task.name!r} has no records ({describe_source(task, split, data)})")


def _pair_tables(
    task: Task | str,
    template: Template | str,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    data: Data | None = None,
    chat: bool = False,
    system: str = "system",
) -> Iterator[pyarrow.Table]:
    check_system(system, chat=chat)
    task, bound = bind_one(task, template, system)
    records = iter(take_records(task, split, "train", limit, seed, data, labelled=True))
    while True:
        with _collector_paused():
            batch = list(itertools.islice(records, BATCH_ROWS))
            table = pair_table(bound, batch, chat=chat) if batch else None
        if table is None:
            return
        yield table


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking a batch of new records again and again: none is in a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH_ROWS)):
        yield batch


def _stream(rows: Callable[..., Rows], **given: Any) -> datasets.IterableDataset:
    """Return what `rows` yields when it is called with what is `given`; both go to workers in other processes.

    A list that is given is what the workers share among them.
    """
    import datasets

    return datasets.IterableDataset.from_generator(rows, gen_kwargs=given)


def _gather(tables: Iterable[pyarrow.Table]) -> datasets.Dataset:
    import datasets
    import pyarrow

    return datasets.Dataset(pyarrow.concat_tables(tables, promote_options="permissive"))
