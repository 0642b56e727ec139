"""Push a set of rows to the Hugging Face hub: Parquet files, a manifest and a data card in one commit."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptkit.errors import RunError
from promptkit.export.shards import write_shards

#: Where data stand in a data set's repository.
DATA = "data"


def manifest_name(split: str) -> str:
    """Return what the manifest of a split is called in a data set's repository."""
    return f"{split}.manifest.json"


def no_manifest(folder: Path) -> None:
    """Return none: rows that have no manifest."""


def push_rows(
    rows: Iterable[Mapping[str, Any]],
    repository: str,
    *,
    split: str,
    card: Callable[[], str],
    private: bool = True,
    suffix: str = ".parquet",
    shards: int | None = None,
    shard_rows: int | None = None,
    manifest: Callable[[Path], bytes | None] = no_manifest,
    hub: Any = None,
) -> tuple[str, int]:
    """Push rows as one split of a data set; return (address of the commit, how many rows).

    The repository is asked first, so that nothing is built in vain; then the rows are written to a temporary folder,
    and files, card and manifest go up in one commit: the split is there whole or not at all. `manifest` is given the
    folder and returns the bytes of the manifest, if there is to be one. A new repository is private unless told
    otherwise; one that is there keeps who may read it, and its card. Who one is, `huggingface_hub` knows from
    `hf auth login` or HF_TOKEN; nothing of it is read or kept here. `hub` is an `HfApi`, or what stands in for one.

    Raises RunError where the split is there already, and for what the hub or the network refuses.
    """
    hub = hub or _connect()
    found = find_repository(repository, split, hub)
    there = found or {}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / DATA / f"{split}{suffix}"
        count = write_shards(rows, target, shards=None if shard_rows else shards or 1, shard_rows=shard_rows)
        if content := manifest(Path(folder)):
            (Path(folder) / manifest_name(split)).write_bytes(content)
        if "README.md" not in there.get("files", ()):
            (Path(folder) / "README.md").write_text(card(), encoding="utf-8")
        with _hub_errors(repository):
            if found is None:
                hub.create_repo(repository, repo_type="dataset", private=private)
            done = hub.upload_folder(
                repo_id=repository,
                repo_type="dataset",
                folder_path=folder,
                commit_message=f"Add {count:,} rows of {split}",
                parent_commit=there.get("commit"),
            )
    return str(done.commit_url), count


def find_repository(repository: str, split: str, hub: Any = None) -> dict[str, Any] | None:
    """Return the last commit of a data set's repository and its files; None where there is no such repository.

    Raises RunError where nobody is logged in, and where the split is there already.
    """
    hub = hub or _connect()
    with _hub_errors(repository):
        hub.whoami()  # without a login, a private repository looks as if it were not there
        found = _look(hub, repository)
    for path in (found or {}).get("files", ()):
        if path.startswith(f"{DATA}/{split}-") or path == manifest_name(split):
            raise RunError(f"{repository}: has {path} already; nothing is overwritten: push to another repository")
    return found


def _connect() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="promptkit")


def _look(hub: Any, repository: str) -> dict[str, Any] | None:
    """Return the last commit of a data set's repository and its files; None where there is no such repository."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = hub.repo_info(repository, repo_type="dataset")
    except RepositoryNotFoundError:
        return None
    return {"commit": info.sha, "files": [file.rfilename for file in info.siblings or ()]}


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line."""
    from huggingface_hub import errors

    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined] # what its client raises
        reason = textwrap.shorten(str(error), 200, placeholder=" …")
        raise RunError(
            f"{repository}: cannot be pushed to: {reason}; log in with `hf auth login`, or write files with --out"
        ) from error
