"""A set goes to the hub in one commit, private, over nothing that is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError

from promptkit.errors import RunError
from promptkit.export.hub import push_rows

ROWS = [{"id": str(number), "prompt": "x", "completion": " y"} for number in range(5)]


class FakeHub:
    """A hub of one repository: the methods of `HfApi` that pushing calls, over a local folder."""

    def __init__(self, root: Path, *, exists: bool = False, refuse: Exception | None = None) -> None:
        self.root, self.exists, self.refuse = root, exists, refuse
        self.calls: list[str] = []
        self.private: bool | None = None
        self.parent: str | None = None
        root.mkdir(exist_ok=True)

    def whoami(self) -> None:
        self.calls.append("whoami")
        if isinstance(self.refuse, LocalTokenNotFoundError):
            raise self.refuse

    def repo_info(self, repository: str, *, repo_type: str) -> Any:
        self.calls.append("repo_info")
        if not self.exists:
            request = httpx2.Request("GET", "https://hub")
            raise RepositoryNotFoundError("404", response=httpx2.Response(404, request=request))
        files = [SimpleNamespace(rfilename=str(path.relative_to(self.root))) for path in self.root.rglob("*")]
        return SimpleNamespace(sha="abc", siblings=files)

    def create_repo(self, repository: str, *, repo_type: str, private: bool) -> None:
        self.calls.append("create_repo")
        self.private, self.exists = private, True

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, commit_message: str, parent_commit: str | None
    ) -> Any:
        self.calls.append("upload_folder")
        if self.refuse:
            raise self.refuse
        self.parent = parent_commit
        shutil.copytree(folder_path, self.root, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def files(self) -> list[str]:
        """The names of the repository's files."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


def push(hub: FakeHub, **options: Any) -> tuple[str, int]:
    """Push five rows as train."""
    return push_rows(iter(ROWS), "me/set", **{"split": "train", "card": lambda: "# set\n", "hub": hub, **options})


def test_new_repository_is_private(tmp_path: Path) -> None:
    """Rows and card are there under the hub's names after one commit; public only when asked for."""
    hub = FakeHub(tmp_path / "hub")
    assert push(hub, shards=2) == ("https://hub/me/set/commit/1", 5)
    assert hub.files() == ["README.md", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    assert (hub.private, hub.calls) == (True, ["whoami", "repo_info", "create_repo", "upload_folder"])
    public = FakeHub(tmp_path / "public")
    push(public, private=False, suffix=".jsonl", shard_rows=5)
    assert (public.private, public.files()) == (False, ["README.md", "data/train-00000-of-00001.jsonl"])


def test_another_split_leaves_what_is_there(tmp_path: Path) -> None:
    """A repository that is there keeps its card, its splits and its visibility, and must not change meanwhile."""
    hub = FakeHub(tmp_path / "hub", exists=True)
    (tmp_path / "hub/README.md").write_text("mine")
    push(hub, split="test")
    assert hub.files() == ["README.md", "data/test-00000-of-00001.parquet"]
    assert ((tmp_path / "hub/README.md").read_text(), hub.private, hub.parent) == ("mine", None, "abc")


def test_split_that_is_there_is_kept(tmp_path: Path) -> None:
    """Nothing is built or uploaded where the split exists."""
    hub = FakeHub(tmp_path / "hub")
    push(hub)
    hub.calls.clear()
    with pytest.raises(
        RunError, match=r"me/set: has data/train-00000-of-00001.parquet already; nothing is overwritten"
    ):
        push(hub)
    assert "upload_folder" not in hub.calls


@pytest.mark.parametrize(
    ("refusal", "asked"),
    [
        (LocalTokenNotFoundError("no\ntoken"), ["whoami"]),
        (httpx2.ConnectError("no network"), ["whoami", "repo_info", "create_repo", "upload_folder"]),
        (OSError("disk"), ["whoami", "repo_info", "create_repo", "upload_folder"]),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, refusal: Exception, asked: list[str]) -> None:
    """No login, no network and no right to write are explained; without a login, nothing is built."""
    hub = FakeHub(tmp_path / "hub", refuse=refusal)
    with pytest.raises(RunError, match=r"me/set: cannot be pushed to: (no|disk).*; log in with `hf auth"):
        push(hub)
    assert (hub.calls, hub.files()) == (asked, [])
