"""A folder laid out as on the hub is read from itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptkit.data.records import load_records
from promptkit.data.tasks import load_task
from promptkit.errors import DataError, TaskError
from tests.conftest import TASK, Project

LINE = '{"sentence": "x", "label": 1}\n'


def readme(paths: str) -> str:
    """Return a README that names files of the split `train`."""
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {paths}\n---\n# Films\n"


def load(project: Project) -> list[str]:
    """Return the texts of the training split of the folder `local` beside the task file."""
    project.write("tasks/films.toml", TASK.replace("nobody/films", "local"))
    return [str(record.fields["text"]) for record in load_records(load_task("films"), "train")]


def test_files_are_found_by_the_split_s_name_or_the_readme(project: Project) -> None:
    """Shards in data/, files in a folder called after the split, and those that a README names are its split."""
    project.write("tasks/local/data/train-00000-of-00002.jsonl", LINE)
    project.write("tasks/local/data/train-00001-of-00002.jsonl", LINE.replace("x", "y"))
    project.write("tasks/local/data/test.jsonl", LINE.replace("x", "no"))
    assert load(project) == ["x", "y"]
    project.write("tasks/local/parts/one.csv", "sentence,label\nz,0\n")
    project.write("tasks/local/README.md", readme('"parts/*.csv"'))
    assert load(project) == ["z"]
    project.write("tasks/local/README.md", readme("[data/train-00001-of-00002.jsonl, parts/one.csv]"))
    assert load(project) == ["y", "z"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret/x.csv", "http://127.0.0.1:9/x.csv", "zip://x.csv::http://h/x.zip", "~/x.csv"]
)
def test_a_readme_reads_nothing_outside_of_the_folder(project: Project, path: str) -> None:
    """Absolute paths, paths upwards and addresses are refused, and the README is named."""
    project.write("tasks/secret/x.csv", "sentence,label\nsecret,1\n")
    project.write("tasks/local/README.md", readme(path))
    with pytest.raises(
        DataError, match=r"tasks/local/README.md: names .*, which is not a file in the folder; .*--data"
    ):
        load(project)


def test_links_out_of_the_folder_are_refused(project: Project) -> None:
    """A file, or the folder itself, that is a link to elsewhere is given with --data or not read."""
    outside = project.write("secret/train.jsonl", LINE)
    (project.root / "tasks/local").mkdir()
    Path("tasks/local/train.jsonl").symlink_to(outside)
    for _ in range(2):
        with pytest.raises(DataError, match=r"is a link to outside of the folder .* with --data"):
            load(project)
        Path("tasks/local/train.jsonl").unlink(missing_ok=True)
        if not Path("tasks/local").is_symlink():
            Path("tasks/local").rmdir()
            Path("tasks/local").symlink_to(outside.parent)


@pytest.mark.parametrize(
    "path", ["", " ", "../data", "/etc", "~/data", "https://example.org/x", "hf://datasets/a/b", "C:/x"]
)
def test_a_task_s_path_stays_beside_it(project: Project, path: str) -> None:
    """What leads out of the task's folder or to the network is an error with the task file's line."""
    project.write("tasks/films.toml", TASK.replace("nobody/films", path))
    with pytest.raises(
        TaskError, match=r"films.toml:10: data.path: .* neither a folder beside the task file nor .*--data"
    ):
        load_task("films")


@pytest.mark.parametrize("line", ['name = "../x"', 'validation = "../data/train"', 'validation = ""', 'name = "/etc"'])
def test_names_are_no_paths(project: Project, line: str) -> None:
    """A configuration or a split that leads elsewhere is an error with the task file's line."""
    project.write("tasks/films.toml", f"{TASK}{line}\n")
    with pytest.raises(TaskError, match=r"films.toml:13: data.\w+: .* is no name of a configuration or split"):
        load_task("films")


def test_a_folder_of_the_working_directory_is_not_meant(project: Project) -> None:
    """`path` does not fall back to the folder from which the command is given."""
    project.write("tasks/films.toml", TASK.replace("nobody/films", "data"))
    with pytest.raises(DataError, match=r"path 'data' is neither a folder beside .*--data"):
        load_records(load_task("films"), "train")


def test_the_readme_names_classes_and_configurations(project: Project) -> None:
    """Names that `dataset_info` gives the ids are used; of several configurations one is named by the task."""
    info = "dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    info += "          '0': positive\n          '1': negative\n"
    project.write("tasks/local/README.md", f"---\n{info}---\n")
    project.write("tasks/local/train.jsonl", '{"sentence": "x", "label": 0}\n')
    load(project)
    assert load_records(load_task("films"), "train")[0].label == 1
    Path("tasks/local/train.jsonl").unlink()
    project.write("tasks/local/train.csv", "sentence,label\nx,0\ny,1\n")
    assert [record.label for record in load_records(load_task("films"), "train")] == [1, 0]
    Path("tasks/local/train.csv").rename("tasks/local/train.jsonl")
    configs = "configs:\n- config_name: a\n  data_files: a.jsonl\n- config_name: b\n  data_files: b.jsonl\n"
    project.write("tasks/local/README.md", f"---\n{configs}---\n")
    project.write("tasks/local/b.jsonl", LINE)
    Path("tasks/local/train.jsonl").unlink()
    with pytest.raises(DataError, match="its configurations are a, b; name one of them with `name` under"):
        load(project)
    project.write("tasks/films.toml", TASK.replace('"nobody/films"', '"local"\nname = "b"'))
    assert load_records(load_task("films"), "train")[0].fields == {"text": "x"}


@pytest.mark.parametrize("head", ["a: [", "- 1\n- 2", "configs: 3", "configs:\n- 4", "a: &a [*a]"])
def test_a_damaged_readme_is_one_error(project: Project, head: str) -> None:
    """YAML that is none, or says nothing of use, is a data error or passed over."""
    project.write("tasks/local/README.md", f"---\n{head}\n---\n")
    with pytest.raises(DataError, match=r"README.md|no files of it"):
        load(project)
