"""A file of records into labels, by an adapter or the model it was merged into."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptkit.data import count_records, iterate_records, place_record
from promptkit.errors import (
    DataError,
    PromptkitError,
    PromptkitWarning,
    RunError,
    TaskError,
    TemplateError,
    WindowError,
)
from promptkit.evaluate import hash_records
from promptkit.files import Columns
from promptkit.local import DataFiles
from promptkit.probes import installed_versions, kind_of_device
from promptkit.prompt import Prompt, build_prompt
from promptkit.record import Record
from promptkit.task import load_task
from promptkit.template import BoundTemplate, load_template
from promptkit.verbs.unfinished import Unfinished, unfinished
from promptkit.work import Track

if TYPE_CHECKING:
    import pyarrow

    from promptkit.adapter import AdapterCard
    from promptkit.models import Model

Row = dict[str, Any]
#: Records that are scored at a time: what is held in memory, and the most that a kill can cost.
PREDICT_ROWS = 512


@dataclass(frozen=True)
class Labeller:
    """An adapter with the task and the template that it was trained for: it turns records into labels.

    A row is {"id", "predicted": label, "scores": {label: nats}}; free-text answers have no scores, and their
    "predicted" is None where none could be read. What the model wrote first is "generated".
    """

    model: Model
    bound: BoundTemplate
    chat: bool
    memory: int | None = None

    def label_all(self, file: str | DataFiles, track: Track | None = None) -> Iterator[Row]:
        """Yield a row per record of `file`; raises DataError and what rendering raises, with file and line."""
        for number, part in self._parts(file, track):
            yield from self._label(file, number * PREDICT_ROWS, part)

    def label_into(self, file: str | DataFiles, out: Path, track: Track | None = None) -> int:
        """Write a row per record of `file` to a new .jsonl or .parquet file, and return how many rows it has.

        Started again after a kill or an error, it goes on behind the last part that was done, and ends in the same
        bytes. Raises RunError where `out` exists, or where the records of parts that are done have changed since.
        """
        with unfinished(out, self._identity()) as done:
            try:
                self._label_parts(file, done, track)
            except (DataError, TemplateError, WindowError) as error:
                kept = f"; the {done.count} rows before are kept in {done.folder}, and the same command goes on there"
                raise type(error)(f"{error}{kept if done.count else ''}") from error
            columns = Columns()
            columns.schema = self._schema() if out.suffix == ".parquet" else None
            done.finish(columns, self._shape)
            return done.count

    def _label_parts(self, file: str | DataFiles, done: Unfinished, track: Track | None) -> None:
        known = iter(list(done.digests))
        for number, part in self._parts(file, track):
            digest, then = hash_records(part), next(known, None)
            if then is None:
                done.add(list(self._label(file, number * PREDICT_ROWS, part)), digest)
            elif then != digest:
                raise RunError(
                    f"{file}: has changed in its first {done.count} records since these were labelled; restore it, "
                    f"or remove {done.folder} to label it anew"
                )
        if next(known, None):
            raise RunError(
                f"{file}: has fewer records than were labelled already; restore it, or remove {done.folder} to label "
                "it anew"
            )

    def _parts(self, file: str | DataFiles, track: Track | None) -> Iterator[tuple[int, list[Record]]]:
        """Yield the file's records, `PREDICT_ROWS` at a time, with their number, and report each that is done."""
        task = self.bound.task
        records = iterate_records(task, "test", data=file, labelled=False)
        total = count_records(task, "test", file) or 0
        report = track("predicting") if track else None
        done = 0
        for number in itertools.count():
            if not (part := list(itertools.islice(records, PREDICT_ROWS))):
                return
            yield number, part
            done += len(part)
            if report:
                report(done, max(total, done))

    def _label(self, file: str | DataFiles, first: int, part: Sequence[Record]) -> Iterator[Row]:
        """Yield the rows of a part whose first record stands at position `first` of the file."""
        from promptkit.score import score

        place = partial(place_record, self.bound.task, "test", file)
        prompts = []
        for position, record in enumerate(part, first):
            try:
                prompts.append(build_prompt(self.bound, record, chat=self.chat))
            except PromptkitError as error:
                raise type(error)(f"{place(position)}: {error}") from error
        try:
            table = score(self.model, prompts, chat=self.chat, memory=self.memory)
        except WindowError as error:
            raise WindowError(f"{place(first + self._longest(prompts))}: {error}") from error
        for record, prediction in zip(part, table.predictions, strict=True):
            labels, index = self.bound.task.labels or record.choices or (), prediction.predicted
            row: Row = {"id": record.id, "predicted": labels[index] if isinstance(index, int) else index}
            if labels:
                row["scores"] = {label: round(nats, 6) for label, nats in zip(labels, prediction.logprobs, strict=True)}
            yield row if prediction.generated is None else {**row, "generated": prediction.generated}

    def _longest(self, prompts: Sequence[Prompt]) -> int:
        """Return the index of the first prompt that does not fit the window: the one that scoring names."""
        from promptkit.score import prompt_lengths

        lengths = prompt_lengths(self.model, prompts, chat=self.chat)
        return next(index for index, length in enumerate(lengths) if length > self.model.window)

    def _identity(self) -> dict[str, str]:
        """Return all that an output's bytes depend on beside the records."""
        return {
            "adapter": self.model.hash,
            "template": self.bound.template.hash,
            "task": self.bound.task.hash,
            "dtype": self.model.dtype,
            "device": kind_of_device(self.model),
            "chat": str(self.chat),
            **installed_versions(),
        }

    def _schema(self) -> pyarrow.Schema:
        """Return the columns of a Parquet file: the same whatever the records are."""
        import pyarrow

        text, nats, task = pyarrow.string(), pyarrow.float64(), self.bound.task
        columns: dict[str, pyarrow.DataType] = {"id": text, "predicted": text}
        if task.labels:
            columns["scores"] = pyarrow.struct(dict.fromkeys(task.labels, nats))
        elif task.has_choices:
            columns["scores"] = pyarrow.list_(pyarrow.struct({"choice": text, "score": nats}))
        if self.bound.template.is_cot or task.is_free_text:
            columns["generated"] = text
        return pyarrow.schema(columns)

    def _shape(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row as Parquet holds it: scores of choices that differ from record to record as a list."""
        if not self.bound.task.has_choices:
            return row
        return {**row, "scores": [{"choice": choice, "score": score} for choice, score in row["scores"].items()]}


def check_records(file: str) -> None:
    """Raise DataError for a stream: records are counted first, and read again where a run goes on."""
    path = Path(file)
    if file in ("-", "/dev/stdin") or (path.exists() and not (path.is_file() or path.is_dir())):
        raise DataError(f"{file}: is a stream, and records are read more than once; write them to a file, as new.jsonl")


def open_labeller(
    adapter: str,
    *,
    task: str | None = None,
    template: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    memory: int | None = None,
    force: bool = False,
    trust_remote_code: bool = False,
) -> Labeller:
    """Load an adapter with the task and the template of its training.

    `task` and `template` name others in their place; that these differ from those of the training is then a
    PromptkitWarning. `dtype` is by default that of the training. With `force` a label of the adapter's probes may have
    changed.

    Raises TemplateError or TaskError where the file has changed since the training, RunError where the adapter knows of
    no single template and none is given, and what `load_model` raises.
    """
    from promptkit.adapter import read_card
    from promptkit.models import load_model

    card = read_card(adapter)
    for kind, named, given in (("template", card.template, template), ("task", card.task, task)):
        if not given and (not named or "," in named):
            several = f"from the {kind}s {named}" if named else f"from rows that name no {kind}"
            raise RunError(f"{adapter}: was trained {several}, so none is sure to fit; name one with --{kind}")
    bound = load_template(template or card.template).bind(load_task(task or card.task), system=card.settings.system)
    if card.other_join:
        raise RunError(f"{adapter}: {card.other_join}")
    _check_same(adapter, card, bound, task_given=task is not None, template_given=template is not None)
    on_flip = "warn" if force else "error"
    options: dict[str, Any] = {"device": device, "on_flip": on_flip, "trust_remote_code": trust_remote_code}
    model = load_model(adapter, dtype=dtype or card.dtype, **options)
    return Labeller(model, bound, card.settings.chat, memory)


def _check_same(
    adapter: str, card: AdapterCard, bound: BoundTemplate, *, task_given: bool, template_given: bool
) -> None:
    """Raise where the task, the template or the words are not those of the training; warn where they were given."""
    task, asking = bound.task, bound.template
    for kind, error, path, now, then, given in (
        ("template", TemplateError, asking.path, asking.hash, card.template_hash, template_given),
        ("task", TaskError, task.path, task.hash, card.task_hash, task_given),
    ):
        if then and now not in then.split(", "):
            found = (
                f"{path}: the {kind} has changed since the adapter {adapter} was trained with it "
                f"(its hash is {now[:12]}, that of the training {then[:12]})"
            )
            if not given:
                raise error(f"{found}; restore the file, train again, or name it with --{kind} to take it as it is")
            _warn(found)
    words = bound.shared_choices
    if card.labels and words and words != card.labels:
        _warn(f"{adapter}: was trained to answer {_list(card.labels)}, and is asked for {_list(words)}")
    if card.demonstrations:
        _warn(f"{adapter}: was trained with up to {card.demonstrations} demonstrations, and is asked without any")


def _warn(message: str) -> None:
    warnings.warn(message, PromptkitWarning, stacklevel=4)


def _list(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words))
