"""Describe a training set in a manifest: its contents, its sources, and enough to build it again, byte for byte."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import orjson

from promptkit.building.candidates import Candidates
from promptkit.building.label_words import RANDOM, SWAPPED, load_legend
from promptkit.building.manifest_file import ENDING, FORM, MARK, FileLayout, Ingredients, read_contents
from promptkit.building.mixture import OWN, Mixture
from promptkit.building.training_set import Component, Item, Row, TrainingSet, load_component
from promptkit.data.local import Data
from promptkit.data.tasks import Task, load_task
from promptkit.errors import DataError, RunError
from promptkit.storage.files import check_free, stage
from promptkit.storage.paths import display_path

Written = TypeVar("Written")
#: The packages that rows, or the bytes of a file of rows, depend on.
PACKAGES = ("promptkit", "jinja2", "numpy", "orjson", "pyarrow", "datasets")
#: Ids of removed records that a manifest names at most, per reason.
_NAMED = 1_000
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


class RowTally:
    """The rows of a set as they pass by: counted by what they are, and hashed.

    `rows` is the SHA-256 of all rows as JSON lines, `ids` that of the appearances of records alone.
    """

    def __init__(self, training_set: TrainingSet) -> None:
        self.training_set = training_set
        self.counts: Counter[tuple[str, str, int, str, int, str | None]] = Counter()
        self._rows, self._ids = hashlib.sha256(), hashlib.sha256()

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the set, each counted when it is asked for."""
        for item in self.training_set.items():
            for row in self.training_set.render(item):
                self._add(item, row)
                yield row

    def _add(self, item: Item, row: Row) -> None:
        draw_key, k, labels = item.draw_key, len(row["demonstration_ids"]), item.component.task.labels
        label = labels[item.record.label] if labels and isinstance(item.record.label, int) else None
        self.counts[draw_key.part, row["template"], k, row.get("wording", OWN), draw_key.epoch, label] += 1
        self._rows.update(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        named = (draw_key.part, draw_key.id, draw_key.epoch, draw_key.repeat, row["template"], k)
        self._ids.update(orjson.dumps(named, option=orjson.OPT_APPEND_NEWLINE))

    def summary(self) -> dict[str, Any]:
        """Return the counts of rows in all, and per task by template, demonstrations, wording, epoch and label."""
        tasks: dict[str, Any] = {}
        for component in self.training_set.components:
            own = {key: count for key, count in self.counts.items() if key[0] == component.name}
            axes = ("templates", "shots", "wordings", "epochs", "labels")
            tasks[component.name] = {
                "rows": sum(own.values()),
                "records": self.training_set.counts[component.name],
                **{axis: _add_up(own, place) for place, axis in enumerate(axes, 1)},
            }
        return {
            "rows": self.counts.total(),
            "rows_sha256": self._rows.hexdigest(),
            "ids_sha256": self._ids.hexdigest(),
            "counts": tasks,
        }


def _add_up(counts: Mapping[tuple[Any, ...], int], place: int) -> dict[Any, int]:
    added: Counter[Any] = Counter()
    for key, count in counts.items():
        if key[place] is not None:
            added[key[place]] += count
    return dict(sorted(added.items()))


def describe_set(training_set: TrainingSet) -> dict[str, Any]:
    """Return what a set is made from, which does not depend on its rows: settings, files, data, what was left out."""
    mixture = training_set.mixture
    return {
        "settings": mixture.model_dump(mode="json"),
        "tasks": {
            each.name: {
                "task": each.task.name,
                "sha256": each.task.hash,
                "templates": template_hashes(each),
                **_describe_candidates(training_set, each.name),
            }
            for each in training_set.components
        },
        "legend": _hash_legend(mixture),
    }


def template_hashes(component: Component) -> dict[str, str]:
    """Return name -> hash of the templates of a part."""
    return {name: bound.template.hash for name, bound in component.templates.items()}


def _describe_candidates(training_set: TrainingSet, name: str) -> dict[str, Any]:
    kept = training_set.candidates[name]
    described: dict[str, Any] = {"data": _describe_data(kept), "compared_with": dict(kept.tested)}
    if any(training_set.mixture.tasks[name].shots) and training_set.pools[name] is not kept:
        described["pool"] = _describe_data(training_set.pools[name])
    return described


def _describe_data(kept: Candidates) -> dict[str, Any]:
    findings = kept.findings
    return {
        "split": kept.split,
        "source": kept.place,
        "records": len(findings.codes),
        "repeated_ids": kept.survey.repeated_ids,
        "sha256": kept.survey.digest,
        "kept": int(findings.kept.sum()),
        "removed": findings.count(),
        "copies_with_another_answer": findings.conflicts,
    }


def _hash_legend(mixture: Mixture) -> str | None:
    """Return the hash of the file that says what other words mean, where a row may need it."""
    if not any({SWAPPED, RANDOM} & part.labels.keys() for part in mixture.tasks.values()):
        return None
    return hashlib.sha256(load_legend().text.encode()).hexdigest()


def manifest_path(out: Path) -> Path:
    """Return where the manifest of a file or folder of rows stands: beside it."""
    return out.with_name(f"{out.stem if out.suffix in ('.jsonl', '.parquet') else out.name}{ENDING}")


def write_set(
    tally: RowTally,
    out: Path,
    write: Callable[[Path], Written],
    export: Mapping[str, Any],
    manifest: Manifest | None = None,
) -> Written:
    """Write a set and its manifest, both whole or neither; return what `write` returned, which is given a path.

    `write` may make one file or folder, or several files beside that path. `export` is kept in the manifest: how the
    rows were laid out. Raises RunError where something is there already or cannot be written, and DataError where
    what comes out is not what `manifest` says.
    """
    beside = manifest_path(out)
    for path in (out, beside):
        check_free(path)
    with stage(out) as place:
        folder = place.folder
        try:
            written = write(folder / out.name)
        except RunError as error:
            raise RunError(str(error).replace(str(folder / out.name), str(out))) from error
        made = sorted(folder.iterdir())
        content = make_manifest(tally, folder, export, manifest)
        with (folder / beside.name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        place.publish([*made, folder / beside.name])  # the manifest last: it never stands there without its rows
    return written


def make_manifest(tally: RowTally, folder: Path, export: Mapping[str, Any], manifest: Manifest | None = None) -> bytes:
    """Return the manifest, as the bytes of a file, of a set whose files, and no others, are in `folder`.

    Raises DataError where it is not what `manifest`, from which the set was made again, says.
    """
    content = {
        MARK: FORM,
        **describe_set(tally.training_set),
        "removed_ids": {name: kept.removed_ids(_NAMED) for name, kept in tally.training_set.candidates.items()},
        **tally.summary(),
        "export": dict(export),
        "files": _describe_files(folder),
        "versions": _versions(),
    }
    if manifest is not None:
        manifest.check(content)
    return orjson.dumps(content, option=_OPTIONS)


def _describe_files(folder: Path) -> dict[str, Any]:
    """Return name -> size in bytes and SHA-256 of every file below `folder`."""
    described = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return described


def _versions() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


class Manifest:
    """A manifest that was read, to make its set again and to hold what comes out against it."""

    def __init__(self, path: Path) -> None:
        self.path, self.contents = path, read_contents(path)

    def rebuild(self, data: Data | None = None) -> TrainingSet:
        """Return the set made again; `data` is where the data are now, as for a mixture.

        Raises DataError naming the first template, task or data that is not what it was.
        """
        mixture, then = self.contents.settings, self.contents.tasks
        mixture = mixture.at(data) if data is not None else mixture
        for name, part in mixture.tasks.items():
            self._compare_task(then[name], load_task(part.task))
        components = [load_component(name, part) for name, part in mixture.tasks.items()]
        for component in components:
            self._compare_all("template", then[component.name].templates, template_hashes(component))
        self._compare("templates/_legend.jinja", self.contents.legend, _hash_legend(mixture))
        made = TrainingSet(mixture, components)
        for name in mixture.tasks:
            self._compare_data(then[name], _describe_candidates(made, name))
        return made

    def _compare_task(self, then: Ingredients, task: Task) -> None:
        self._compare(f"task {task.name!r} ({display_path(task.path)})", then.sha256, task.hash)

    def _compare_data(self, then: Ingredients, now: Mapping[str, Any]) -> None:
        for key, data in {"data": then.data, "pool": then.pool}.items():
            if data:
                what = f"the {data.split} data of task {then.task!r} ({now[key]['source']})"
                self._compare(what, data.sha256, now[key]["sha256"])
        self._compare_all("the data of", then.compared_with, now["compared_with"])

    def _compare_all(self, what: str, then: Mapping[str, str], now: Mapping[str, str]) -> None:
        for name in {**then, **now}:
            self._compare(f"{what} {name}", then.get(name), now.get(name))

    def _compare(self, what: str, then: str | None, now: str | None) -> None:
        if then == now:
            return
        change = f"was {then[:12]}, is {now[:12]}" if then and now else "is gone" if then else "is new"
        raise DataError(f"{self.path}: {what} has changed since (SHA-256 {change}); restore it, or build a new set")

    def check(self, made: Mapping[str, Any]) -> None:
        """Raise DataError where the rows of another manifest are others or, written in the same way, their bytes."""
        same_way = FileLayout(**made["export"]) == self.contents.export
        files = {name: each.sha256 for name, each in self.contents.files.items()}
        if made["rows_sha256"] != self.contents.rows_sha256:
            what = "other rows came out"
        elif same_way and _hashes({name: each["sha256"] for name, each in made["files"].items()}) != _hashes(files):
            what = "the same rows came out as other bytes"
        else:
            return
        then, now = self.contents.versions, made["versions"]
        others = [f"{name} {then.get(name)} then, {now.get(name)} now" for name in {**then, **now}]
        others = [each for each, name in zip(others, {**then, **now}, strict=True) if then.get(name) != now.get(name)]
        raise DataError(
            f"{self.path}: templates, tasks and data are the same, yet {what}; "
            + ("; ".join(others) if others else "promptkit's own files have changed")
        )


def _hashes(files: Mapping[str, str]) -> list[str]:
    """Return the hashes of the files that hold rows: a data card names what the set was built from."""
    return sorted(digest for name, digest in files.items() if Path(name).name != "README.md")
