"""Write rows to a file, several files, a `datasets` folder or a hub repository, in one of the formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptkit.building.manifest import manifest_path
from promptkit.data.tasks import Task, load_task
from promptkit.errors import TaskError
from promptkit.export.data_card import Tally, write_card
from promptkit.export.formats import CHAT_FORMATS, TEXT_FORMATS, export_rows
from promptkit.export.hub import find_repository, manifest_name, push_rows
from promptkit.storage.files import check_free, find_writer, write_rows
from promptkit.storage.row_folders import check_no_shards

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Export:
    """How rows are laid out, and in what they are put.

    `kind` is prompts or pairs, `source` the task or file they come from, `split` what they are to be called. `format`
    is one of `promptkit.export.formats.FORMATS`, or None for promptkit's own rows. `out` is a .jsonl or .parquet file;
    with `shards` (how many) or `shard_rows` (how large) the pattern of several files; without an ending, a folder for
    `datasets.load_from_disk`. `push` is a repository of the hub instead, private but with `public`.
    """

    kind: str
    source: str
    split: str
    format: str | None = None
    chat: bool | None = None
    out: str | None = None
    push: str | None = None
    public: bool = False
    shards: int | None = None
    shard_rows: int | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def turns(self) -> bool:
        """Whether rows are to have chat turns: as asked, else as the format wants them.

        Alpaca's, which is text, learns from them which part of it is the instruction.
        """
        return self.chat if self.chat is not None else self.format in (*CHAT_FORMATS, "alpaca")

    @property
    def place(self) -> str:
        """Where the rows will be, in words."""
        path = Path(self.out or "")
        cut = self.shards or self.shard_rows
        return self.push or str(path.with_name(f"{path.stem}-*{path.suffix}") if cut and path.suffix else path)

    @property
    def suffix(self) -> str:
        """The ending of the files that the rows are put in; none for a folder."""
        if self.push:
            return ".jsonl" if self.format == "openai" else ".parquet"
        return Path(self.out or "").suffix

    @property
    def manifest(self) -> str | None:
        """Where the manifest of pairs will be: beside `out`, or in the repository; None on stdout."""
        if self.push:
            return f"{self.push}/{manifest_name(self.split)}"
        return str(manifest_path(Path(self.out))) if self.out else None

    @property
    def settings(self) -> dict[str, Any]:
        """What a manifest keeps of how rows were written."""
        given = {"format": self.format, "split": self.split, "shards": self.shards, "shard_rows": self.shard_rows}
        return {name: value for name, value in given.items() if value is not None} | {"suffix": self.suffix}

    def misuse(self) -> str | None:
        """Return what is wrong with settings that do not go together, or None."""
        path, cut = Path(self.out or ""), self.shards or self.shard_rows
        wrong = {
            "--format goes with --as pairs": self.format and self.kind != "pairs",
            f"--format {self.format} holds plain text: leave --chat out, or take --format messages": self.chat
            and self.format in TEXT_FORMATS,
            "--push and --out: give one of them; the same command with the other has the same rows": self.push
            and self.out,
            "--public goes with --push": self.public and not self.push,
            "--shards and --shard-rows go with --out or --push": cut and not (self.out or self.push),
            "--shards and --shard-rows: give one of them": self.shards and self.shard_rows,
            "a folder for `datasets` is cut by --shards; --shard-rows goes with --out FOLDER/NAME.parquet": self.out
            and not path.suffix
            and self.shard_rows,
            "--format openai is JSONL: give --out a name that ends in .jsonl": self.out
            and self.format == "openai"
            and path.suffix != ".jsonl",
        }
        return next((message for message, found in wrong.items() if found), None)

    def check(self) -> None:
        """Raise RunError where something is in the place of the rows already, or cannot be put there.

        The hub is asked who pushes, and whether the split is there.
        """
        if self.push:
            find_repository(self.push, self.split)
        if self.out:
            path = Path(self.out)
            check_free(path)
            if self.kind == "pairs":
                check_free(manifest_path(path))
            if path.suffix:
                find_writer(path)
            if self.shards or self.shard_rows:
                check_no_shards(path)

    def lay_out(self, rows: Rows) -> Rows:
        """Return rows in the format; as they are, where none is named."""
        return export_rows(rows, self.format) if self.format else rows

    def write(self, rows: Rows, path: Path) -> int:
        """Write rows to `path`, which ends as `out` does, and return how many."""
        rows = self._watch(rows)
        if not path.suffix:
            from promptkit.export.shards import write_folder

            return write_folder(rows, path, split=self.split, shards=self.shards, card=self._card)
        if self.shards or self.shard_rows:
            from promptkit.export.shards import write_shards

            return write_shards(rows, path, shards=self.shards, shard_rows=self.shard_rows)
        return write_rows(rows, path)

    def upload(self, rows: Rows, manifest: Callable[[Path], bytes | None]) -> tuple[str, int]:
        """Push rows to the hub; return (address of the commit, how many rows). `manifest` is that of `push_rows`."""
        return push_rows(
            self._watch(rows),
            str(self.push),
            split=self.split,
            card=self._card,
            private=not self.public,
            suffix=self.suffix,
            shards=self.shards,
            shard_rows=self.shard_rows,
            manifest=manifest,
        )

    def _watch(self, rows: Rows) -> Rows:
        return self.tally.note_columns(self.lay_out(self.tally.watch(rows)))

    def _card(self) -> str:
        return write_card(
            self.tally,
            name=f"{Path(self.source).stem} {self.kind}",
            kind=self.kind,
            format_=self.format or "promptkit",
            split=self.split,
            tasks=list(self._tasks()),
        )

    def _tasks(self) -> Iterator[Task]:
        """Yield the tasks of the rows, those that can be found."""
        for name in {task for task, _, _ in self.tally.sources}:
            with suppress(TaskError):
                yield load_task(self.source if Path(self.source).stem == name else name)
