"""Build rows from a task, a mixture or a manifest, and write them to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from promptkit.building import Mixture, MixturePart, TrainingSet, is_mixture, load_mixture, make_mixture
from promptkit.building.build import iterate_prompts
from promptkit.building.manifest import Manifest, RowTally, make_manifest, write_set
from promptkit.building.manifest_file import is_manifest, read_contents
from promptkit.building.mixture import parse_weight
from promptkit.data.local import Data
from promptkit.data.records import count_records
from promptkit.data.splits import is_cut
from promptkit.data.tasks import load_task
from promptkit.errors import DataError
from promptkit.experiments.evaluate import Progress
from promptkit.experiments.executor import Track
from promptkit.prompts.prompt import prompt_row
from promptkit.templating.binding import bind_matching

Rows = Iterator[dict[str, Any]]
Written = TypeVar("Written")
PROMPTS, PAIRS = "prompts", "pairs"
TASK, MIXTURE, MANIFEST = "task", "mixture", "manifest"
#: Options of prompts and of a single task's pairs, by the names that they have in both.
_PART = {name for name in MixturePart.model_fields if name != "task"}
_ONLY_PAIRS = {*MixturePart.model_fields, *Mixture.model_fields} - {
    *("task", "tasks", "data", "templates", "shots", "selection", "order", "train_limit"),
    *("limit", "split", "seed", "chat", "system"),
}


@dataclass(frozen=True)
class Building:
    """Rows to be written, and what counts them: None where they are prompts, which have no manifest.

    `manifest` is the one that they are made from again; None where they are made for the first time. `note` says in
    words what of the data prompts are made of, where it is not all.
    """

    kind: str
    rows: Rows
    tally: RowTally | None = None
    manifest: Manifest | None = None
    note: str | None = None

    def write(self, out: Path, write: Callable[[Path], Written], export: Mapping[str, Any]) -> Written:
        """Write the rows to `out`, pairs with their manifest beside; `write` and `export` are those of `write_set`."""
        if self.tally is None:
            return write(out)
        return write_set(self.tally, out, write, export, self.manifest)

    def make_manifest(self, folder: Path, export: Mapping[str, Any]) -> bytes | None:
        """Return the manifest of the rows, which were all written to `folder`; None for prompts."""
        return None if self.tally is None else make_manifest(self.tally, folder, export, self.manifest)

    def report(self) -> list[str]:
        """Return, in words, what the rows come from and what was left out of them: a line per task."""
        notes = [] if self.note is None else [self.note]
        if self.tally is None:
            return notes
        return [*describe_removed(self.tally.training_set), *self.tally.training_set.note_unlearned()]

    def summary(self, manifest: str | None) -> dict[str, Any]:
        """Return the same as JSON, with the name of the manifest; nothing for prompts."""
        if self.tally is None:
            return {}
        candidates = self.tally.training_set.candidates
        removed = {name: kept.findings.count() for name, kept in candidates.items()}
        return {"manifest": manifest, "removed": removed}


def choose_kind(source: str, kind: str | None) -> str:
    """Return `kind`, or what a source is for by default; raises DataError where it is not for `kind`."""
    name = _name_source(source)
    if name != TASK and kind == PROMPTS:
        raise DataError(f"{source}: a {name} makes training pairs; leave out --as prompts")
    return kind or (PROMPTS if name == TASK else PAIRS)


def is_task(source: str) -> bool:
    """Return whether a source is a task rather than a mixture or a manifest."""
    return _name_source(source) == TASK


def _name_source(source: str) -> str:
    return MIXTURE if is_mixture(source) else MANIFEST if is_manifest(source) else TASK


def recall_export(source: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a mixture or a manifest says of how its rows are laid out: the split; the format, if none is given.

    Without `out` or `push` in what is given, rows are neither laid out in files nor compared with the manifest's.
    """
    name = _name_source(source)
    if name == MIXTURE:
        return {} if "split" in given else {"split": load_mixture(source).split}
    if name == TASK:
        return {}
    contents = read_contents(Path(source))
    layout = contents.export.model_dump(include={"format", "shards", "shard_rows"})
    recalled = {} if layout.keys() & given.keys() or not {"out", "push"} & given.keys() else layout
    return {"split": contents.settings.split, **recalled}


def build_rows(source: str, kind: str, *, turns: bool = False, track: Track | None = None, **given: Any) -> Building:
    """Return the rows of a data set: of a task's prompts or pairs, of a mixture (a TOML file), or of a manifest.

    `given` are the settings that were asked for: those of `build_prompts`, with `templates` and `shots`, or those of
    `MixturePart` and `Mixture`. With `turns` rows have chat messages; those of a manifest are
    as they were. Raises DataError for a setting that does not go with the source or the kind.
    """
    name = _name_source(source)
    if kind == PROMPTS:
        _refuse(given, _ONLY_PAIRS, "goes with training pairs: give --as pairs")
        rows = _prompt_rows(source, track=track, **{**given, "chat": turns})
        return Building(PROMPTS, rows, note=_note_half(given.get("data"), given.get("split")))
    manifest = None
    if name == MANIFEST:
        _refuse(given, given.keys() - {"data"}, "does not go with a manifest, which says all but where the data are")
        manifest = Manifest(Path(source))
        made = manifest.rebuild(given.get("data"))
    else:
        given = {**given, "chat": True} if turns else given
        made = TrainingSet(_mix(source, given) if name == MIXTURE else _single(source, given))
    tally = RowTally(made)
    return Building(PAIRS, _tracked(tally.rows(), made.total, Path(source).stem, track), tally, manifest)


def _refuse(given: Mapping[str, Any], refused: Iterable[str], why: str) -> None:
    for name in sorted(given.keys() & set(refused)):
        option = {"templates": "template"}.get(name, name).replace("_", "-")
        raise DataError(f"--{option} {why}")


def _mix(source: str, given: Mapping[str, Any]) -> Mixture:
    """Return the mixture of a file, with the settings that were given in place of the file's."""
    _refuse(given, _PART - {"data", "limit"}, f"does not go with a mixture: write it into {source}, task by task")
    mixture = load_mixture(source, **{name: value for name, value in given.items() if name != "data"})
    return mixture.at(given["data"]) if "data" in given else mixture


def _single(task: str, given: Mapping[str, Any]) -> Mixture:
    """Return one task's settings as a mixture of it alone."""
    part = {name: value for name, value in given.items() if name in _PART}
    rest = {name: value for name, value in given.items() if name not in _PART}
    loaded = load_task(task)
    return make_mixture({**rest, "tasks": {loaded.name: {**part, "task": task}}}, f"pairs of {task}")


def describe_removed(training_set: TrainingSet) -> list[str]:
    """Return a line per task: how many records were read, which of them were left out, how many rows they make."""
    lines = []
    for name, kept in training_set.candidates.items():
        removed = kept.findings.count()
        line = f"{name}: {len(kept.findings.codes):,} records of {kept.place}"
        if removed:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in removed.items())
            line += f"; {sum(removed.values()):,} left out ({reasons})"
        if kept.findings.conflicts:
            line += f"; {kept.findings.conflicts:,} copies had another answer than the record that stays"
        if kept.survey.repeated_ids:
            line += f"; warning: {kept.survey.repeated_ids:,} have the id of another record, and with it the same draws"
        if training_set.mixture.copies != "keep" and not kept.has_test and training_set.mixture.split != "test":
            line += "; no validation or test split to compare with"
        lines.append(f"{line}; {training_set.counts[name]:,} records an epoch")
    return lines


def _note_half(data: Data | None, split: str | None) -> str | None:
    return f"{data} is one file: prompts are made of the half that is tested on" if is_cut(data, split) else None


def _prompt_rows(
    task: str,
    *,
    templates: Sequence[str] = (),
    shots: Sequence[int] = (0,),
    track: Track | None = None,
    **settings: Any,
) -> Rows:
    """Yield the rows of prompts, one template and number of shots after the other."""
    loaded = load_task(task)
    for pattern in templates:
        if parse_weight(pattern)[1] is not None:
            raise DataError(f"--template {pattern}: weights go with training pairs: give --as pairs, or no weight")
    data, split = settings.get("data"), settings.get("split")
    there = count_records(loaded, split or "test", data)
    total = settings.get("limit") or (there // 2 if there and is_cut(data, split) else there)
    for bound in bind_matching(loaded, templates):
        for k in shots:
            rows = map(prompt_row, iterate_prompts(loaded, bound.template, k=k, **settings))
            yield from _tracked(rows, total, bound.template.name, track)


def _tracked(rows: Iterable[dict[str, Any]], total: int | None, name: str, track: Track | None) -> Rows:
    """Yield rows, reporting every hundredth of them; time is counted from the first row on."""
    report: Progress | None = None
    for done, row in enumerate(rows, 1):
        if track and total and report is None:
            report = track(name)
        yield row
        if report and total and (done % max(1, total // 100) == 0 or done == total):
            report(min(done, total), total)
