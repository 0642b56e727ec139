"""A data card says what the rows are, how they were made, how many, and that their terms are unknown."""

from __future__ import annotations

import yaml

from promptkit.data.tasks import load_task
from promptkit.export.data_card import MOST_ANSWERS, Tally, write_card
from tests.conftest import TASK, Project

ROWS = [
    {
        "prompt": "a",
        "label": number % 2,
        "choices": [" no", " y|es"],
        "task": "sst2",
        "template": "t/a",
        "template_hash": "0" * 64,
    }
    for number in range(5)
]


def card(tally: Tally, **options: object) -> str:
    given = {"name": "sst2 pairs", "kind": "pairs", "format_": "messages", "split": "train", **options}
    return write_card(tally, **given)  # type: ignore[arg-type]


def test_card_counts_what_passed() -> None:
    """Rows pass unchanged; rows per template and per answer are in the card, and no path or date."""
    tally = Tally()
    assert list(tally.note_columns(tally.watch(ROWS))) == ROWS
    text = card(tally, tasks=[load_task("sst2")])
    assert "5 pairs of a prompt and the completion to learn, split `train`, format `messages`" in text
    assert "Columns: `prompt`, `label`, `choices`, `task`, `template`, `template_hash`." in text
    assert "| sst2 | t/a | 000000000000 | 5 |" in text
    assert '| " no" | 3 |\n| " y\\|es" | 2 |' in text
    assert "Source, unless local files took its place: the hub's `stanfordnlp/sst2`." in text
    assert card(tally) == card(tally)


def test_a_folder_beside_the_task_is_no_hub(project: Project) -> None:
    """The source of local data is told as such, and what a description says begins no heading."""
    project.write("tasks/films.toml", TASK.replace("nobody/films", "local").replace("Movie-", "Movies.\\n## "))
    project.write("tasks/local/train.jsonl", "")
    tally = Tally()
    list(tally.watch([{**row, "task": "films"} for row in ROWS]))
    text = card(tally, tasks=[load_task("films")])
    assert "Movies. ## review sentences, positive or negative. Source" in text
    assert "the folder `local` beside its task file." in text


def test_terms_are_for_the_publisher_to_state() -> None:
    """The head, which the hub reads, says that the terms are unknown, and the text who must look them up."""
    tally = Tally()
    list(tally.watch(ROWS * 300))
    text = card(tally, name="it's: mine")
    head = yaml.safe_load(text.split("---")[1])
    assert (head["license"], head["pretty_name"], head["size_categories"]) == ("unknown", "it's: mine", ["1K<n<10K"])
    assert "Whoever passes the set on must look these up" in text


def test_free_answers_are_not_listed() -> None:
    """Answers that are texts, not labels, are not counted one by one, however many there are."""
    tally = Tally()
    list(tally.watch({"prompt": "a", "label": f"answer {number}"} for number in range(10_000)))
    assert len(tally.answers) <= MOST_ANSWERS + 1
    assert "The answers are texts, or choices of each record's own." in card(tally)
