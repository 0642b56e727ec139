"""Label a file of records by an adapter, or by the model it was merged into."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from promptkit.adapters.reference_outputs import installed_versions, kind_of_device
from promptkit.cli.verbs.predicted_file import Answered, Fields, find_writer, write_json
from promptkit.cli.verbs.unfinished import Unfinished, errors_of, unfinished
from promptkit.data.local import DataFiles
from promptkit.data.record import Record
from promptkit.data.records import Query, count_records, find_table, iterate_queries
from promptkit.data.tasks import load_task
from promptkit.errors import (
    DataError,
    PromptkitError,
    RunError,
    TaskError,
    TemplateError,
    WindowError,
)
from promptkit.experiments.executor import Track
from promptkit.prompts.prompt import Prompt, build_prompt
from promptkit.scoring.calibration import choice_probabilities
from promptkit.stats.majority import OneAnswer, find_one_answer
from promptkit.storage.rows import find_dialect
from promptkit.templating.template import BoundTemplate, load_template

if TYPE_CHECKING:
    import pyarrow

    from promptkit.adapters.card import AdapterCard
    from promptkit.models import Model
    from promptkit.scoring import Prediction

Row = dict[str, Any]
#: Records that are scored at a time: what is held in memory, and the most that a kill can cost.
PREDICT_ROWS = 512
#: What happens at a row that cannot be labelled, and at one that is longer than the model's window.
ON_ERROR, OVERLONG = ("stop", "skip"), ("error", "drop", "skip")


@dataclass(frozen=True)
class PredictionsWritten:
    """What an output file holds: its `rows`, how many were left out, and the file of their reasons.

    `one_answer` is the label of nearly all rows, and its share, where there is one: see `promptkit.stats.majority`.
    """

    rows: int
    left_out: int
    errors: Path | None
    one_answer: OneAnswer | None = None


@dataclass(frozen=True)
class Labeller:
    """An adapter with the task and the template that it was trained for: it turns records into labels.

    A row is the input's, and "predicted": label, "confidence": its probability, "scores": {label: nats},
    "probabilities": {label: share}, which is the softmax of the scores over the choices. Free-text answers have none of
    these but "predicted", which is None where none could be read. What the model wrote first is "generated". An "id" is
    added where the input has none. All these names begin with `prefix`.

    With `on_error` "skip" a row that cannot be labelled is left out with its reason, and with "stop" it is an error;
    with `overlong` "drop" (or "skip") one beyond the window is left out in any case.
    """

    model: Model
    bound: BoundTemplate
    chat: bool
    memory: int | None = None
    on_error: str = "stop"
    overlong: str = "error"
    prefix: str = ""

    def label_all(
        self, file: str | DataFiles, track: Track | None = None, left_out: Callable[[Row], object] | None = None
    ) -> Iterator[Row]:
        """Yield a row per record of `file`; raises DataError and what rendering raises, with file and line.

        `left_out` is called with the place, id and reason of every row that is left out.
        """
        fields, done = self._fields(), 0
        total = count_records(self.bound.task, "test", file) or 0
        report = track("predicting") if track else None
        for _, part in self._parts(file):
            found, done = self._label(part), done + len(part)
            if report:
                report(done, max(total, done))
            for query, own in zip(part, found, strict=True):
                if "error" in own:
                    if left_out:
                        left_out({name: own[name] for name in _REASON})
                else:
                    yield fields.put(query.row, own)

    def label_into(self, file: str | DataFiles, out: Path, track: Track | None = None) -> int:
        """Write a row per record of `file` to a new file, and return how many rows it has; see `label_file`."""
        return self.label_file(file, out, track).rows

    def label_file(self, file: str | DataFiles, out: Path, track: Track | None = None) -> PredictionsWritten:
        """Write the rows of `file` with what is predicted to a new .jsonl, .csv, .tsv or .parquet file.

        All columns of the input are kept, in their order and as they are; from Parquet to Parquet with their types.
        What was left out has its reasons in OUT.errors.jsonl, which comes together with `out`. Started again after a
        kill or an error, it goes on behind the last part that was done, and ends in the same bytes.

        Raises RunError where `out` exists, or where the records of parts that are done have changed since; DataError
        where no row at all could be labelled.
        """
        fields = self._fields()
        source, cells = find_table(self.bound.task, file)
        same = source.suffix in (".csv", ".tsv") and out.suffix == source.suffix
        write = find_writer(out, source, find_dialect(source, cells) if same else None, fields)
        with unfinished(out, self._identity()) as done:
            try:
                self._label_parts(file, done, track)
            except (DataError, TemplateError, WindowError) as error:
                kept = f"; the {done.count} rows before are kept in {done.folder}, and the same command goes on there"
                raise type(error)(f"{error}{kept if done.count else ''}") from error
            failed = [row for row in done.read() if "error" in row]
            if failed and self.on_error != "skip" and self.overlong == "error":
                raise RunError(
                    f"{done.folder}: rows were left out there ({failed[0]['place']}: {failed[0]['error']}); give "
                    "--on-error skip again, or remove it to label all rows anew"
                )
            if failed and len(failed) == done.count:
                done.digests.clear()
                place, reason = failed[0]["place"], failed[0]["error"]
                raise DataError(f"{place}: {reason}; so none of the {len(failed):,} rows of {file} could be labelled")

            def list_failed(errors: BinaryIO) -> None:
                for row in failed:
                    errors.write(write_json({"row": row["at"] + 1, **{name: row[name] for name in _REASON}}) + b"\n")

            answered = partial(self._put_together, file, done)
            one = find_one_answer([[row["predicted"] for row in done.read() if "error" not in row]])
            done.finish(partial(write, answered), list_failed if failed else None)
            return PredictionsWritten(done.count - len(failed), len(failed), errors_of(out) if failed else None, one)

    def _put_together(self, file: str | DataFiles, done: Unfinished) -> Iterator[Answered]:
        for query, own in zip(iterate_queries(self.bound.task, file), done.read(), strict=False):
            if "error" not in own:
                yield query.row, own

    def _label_parts(self, file: str | DataFiles, done: Unfinished, track: Track | None) -> None:
        known, kept = list(done.digests), done.count
        total = max(0, (count_records(self.bound.task, "test", file) or 0) - kept)
        report = track("predicting") if track else None
        if report:
            report(0, total)  # the time left is that of what is to be done, not of what was done before
        parts = 0
        for number, part in self._parts(file):
            digest, parts = _digest(part), number + 1
            if number >= len(known):
                done.add([{"at": at, **own} for at, own in enumerate(self._label(part), done.count)], digest)
                if report:
                    report(done.count - kept, max(total, done.count - kept))
            elif known[number] != digest:
                raise RunError(
                    f"{file}: has changed in its first {kept} records since these were labelled; restore it, "
                    f"or remove {done.folder} to label it anew"
                )
        if parts < len(known):
            raise RunError(
                f"{file}: has fewer records than were labelled already; restore it, or remove {done.folder} to label "
                "it anew"
            )

    def _parts(self, file: str | DataFiles) -> Iterator[tuple[int, list[Query]]]:
        """Yield the file's rows, `PREDICT_ROWS` at a time, with their number."""
        taken, queries = self._fields().names, iterate_queries(self.bound.task, file)
        for number in itertools.count():
            if not (part := list(itertools.islice(queries, PREDICT_ROWS))):
                return
            for query in part:
                if clash := sorted(taken & query.row.keys()):
                    raise DataError(
                        f"{query.place}: has a column {clash[0]!r} already, the name of one that is added; give "
                        "--prefix, such as --prefix model_, for the names of those"
                    )
            yield number, part

    def _label(self, part: Sequence[Query]) -> list[Row]:
        """Return what is predicted of each row of a part, or its place, id and error where it is left out."""
        found: dict[int, Row] = {}
        prompts: dict[int, Prompt] = {}
        for index, query in enumerate(part):
            try:
                if query.record is None:
                    raise query.error or DataError("the row cannot be read")
                prompts[index] = build_prompt(self.bound, query.record, chat=self.chat)
            except PromptkitError as error:
                found[index] = self._leave_out(query, error)
        for index, prediction in self._score(part, prompts, found):
            record = part[index].record
            assert record is not None
            found[index] = self._row(record, prediction)
        return [found[index] for index in range(len(part))]

    def _score(
        self, part: Sequence[Query], prompts: dict[int, Prompt], found: dict[int, Row]
    ) -> Iterator[tuple[int, Prediction]]:
        """Yield the predictions of prompts; those that cannot be scored are put among what is `found`."""
        from promptkit.scoring import find_faults, score

        if not prompts:
            return
        try:
            table = score(self.model, list(prompts.values()), chat=self.chat, memory=self.memory)
        except PromptkitError:
            faults = find_faults(self.model, prompts.values(), chat=self.chat)
            if not faults:
                raise
            for index, fault in zip([list(prompts)[position] for position in faults], faults.values(), strict=True):
                found[index] = self._leave_out(part[index], fault)
                del prompts[index]
            yield from self._score(part, prompts, found)
            return
        yield from zip(prompts, table.predictions, strict=True)

    def _leave_out(self, query: Query, error: PromptkitError) -> Row:
        """Return the reason why a row is left out; raises the error with its place where rows may not be."""
        overlong = isinstance(error, WindowError) and self.overlong != "error"
        if self.on_error != "skip" and not overlong:
            raise type(error)(f"{query.place}: {error}") from error
        id_ = query.record.id if query.record else query.row.get("id")
        return {"place": query.place, "id": None if id_ is None else str(id_), "error": " ".join(str(error).split())}

    def _row(self, record: Record, prediction: Prediction) -> Row:
        labels, index = self.bound.task.labels or record.choices or (), prediction.predicted
        row: Row = {"id": record.id, "predicted": labels[index] if isinstance(index, int) else index}
        if labels and prediction.logprobs:
            shares = choice_probabilities(prediction.logprobs)
            row["confidence"] = round(shares[index], 6) if isinstance(index, int) else None
            row["scores"] = {label: round(nats, 6) for label, nats in zip(labels, prediction.logprobs, strict=True)}
            row["probabilities"] = {label: round(share, 6) for label, share in zip(labels, shares, strict=True)}
        return row if prediction.generated is None else {**row, "generated": prediction.generated}

    def _identity(self) -> dict[str, str]:
        """Return all that an output's bytes depend on beside the records."""
        return {
            "adapter": self.model.hash,
            "template": self.bound.template.hash,
            "task": self.bound.task.hash,
            "dtype": self.model.dtype,
            "device": kind_of_device(self.model),
            "chat": str(self.chat),
            "prefix": self.prefix,
            **installed_versions(),
        }

    def _fields(self) -> Fields:
        """Return what is added to a row, with the types of a Parquet file: the same whatever the records are."""
        import pyarrow

        text, number, task = pyarrow.string(), pyarrow.float64(), self.bound.task
        types: dict[str, pyarrow.DataType] = {"id": text, "predicted": text}
        if task.labels or task.has_choices:
            types["confidence"] = number
        if task.labels:
            types |= dict.fromkeys(("scores", "probabilities"), pyarrow.struct(dict.fromkeys(task.labels, number)))
        elif task.has_choices:
            for name, value in (("scores", "score"), ("probabilities", "probability")):
                types[name] = pyarrow.list_(pyarrow.struct({"choice": text, value: number}))
        if self.bound.template.is_cot or task.is_free_text:
            types["generated"] = text
        return Fields(task.labels or (), types, self.prefix)


_REASON = ("place", "id", "error")


def _digest(part: Sequence[Query]) -> str:
    """Return a hex digest of the rows of a part, all of their columns."""
    digest = hashlib.sha256()
    for query in part:
        digest.update(repr((dict(query.row), str(query.error))).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


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
    on_error: str = "stop",
    overlong: str = "error",
    prefix: str = "",
) -> Labeller:
    """Load an adapter with the task and the template of its training.

    `task` and `template` name others in their place; that these differ from those of the training is then a
    PromptkitWarning. `dtype` is by default that of the training. With `force` a label of the adapter's probes may have
    changed. `on_error`, `overlong` and `prefix` are those of the `Labeller`.

    Raises TemplateError or TaskError where the file has changed since the training, RunError where the adapter knows of
    no single template and none is given, and what `load_model` raises.
    """
    from promptkit.adapters.card import Asked, read_card, warn_of_other_form
    from promptkit.adapters.loading import load_model

    card = read_card(adapter)
    for kind, named, given in (("template", card.template, template), ("task", card.task, task)):
        if not given and (not named or "," in named):
            several = f"from the {kind}s {named}" if named else f"from rows that name no {kind}"
            raise RunError(f"{adapter}: was trained {several}, so none is sure to fit; name one with --{kind}")
    bound = load_template(template or card.template).bind(load_task(task or card.task), system=card.settings.system)
    if card.other_join:
        raise RunError(f"{adapter}: {card.other_join}")
    _refuse_changed(adapter, card, bound, task_given=task is not None, template_given=template is not None)
    asked = Asked.of(bound.task, [bound], (0,), chat=card.settings.chat, system=card.settings.system)
    warn_of_other_form(adapter, asked, card)
    on_flip = "warn" if force else "error"
    options: dict[str, Any] = {"device": device, "on_flip": on_flip, "trust_remote_code": trust_remote_code}
    model = load_model(adapter, dtype=dtype or card.dtype, **options)
    return Labeller(model, bound, card.settings.chat, memory, on_error, overlong, prefix)


def _refuse_changed(
    adapter: str, card: AdapterCard, bound: BoundTemplate, *, task_given: bool, template_given: bool
) -> None:
    """Raise where a task or template file that the card names is not that of the training; given, it is taken."""
    task, asking = bound.task, bound.template
    for kind, error, path, now, then, given in (
        ("template", TemplateError, asking.path, asking.hash, card.template_hash, template_given),
        ("task", TaskError, task.path, task.hash, card.task_hash, task_given),
    ):
        if then and not given and now not in then.split(", "):
            raise error(
                f"{path}: the {kind} has changed since the adapter {adapter} was trained with it "
                f"(its hash is {now[:12]}, that of the training {then[:12]}); restore the file, train again, or name "
                f"it with --{kind} to take it as it is"
            )
