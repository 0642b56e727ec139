"""Order search: its measures against written-out ones, the search against brute force, and the model's own queries."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptkit.adapters.loading import load_model
from promptkit.data.record import Record
from promptkit.data.records import hash_order
from promptkit.data.tasks import load_task
from promptkit.demonstrations.orders import all_orders, permute
from promptkit.demonstrations.pool import Asked
from promptkit.errors import SelectionError, TemplateError, WindowError
from promptkit.models import Model
from promptkit.prompts.prompt import Prompt, render_text
from promptkit.scoring import score
from promptkit.scoring.order_search import (
    ChoiceProbabilities,
    ProbingWriter,
    global_entropy,
    input_parts,
    local_entropy,
    rank_orders,
    search_orders,
)
from promptkit.templating.template import BoundTemplate, load_template
from tests.conftest import SENTENCES, Project

rows = st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=1, max_size=6).map(
    lambda table: [[value / sum(row) for value in row] for row in table]
)
CHOSEN = [Record(name, {"text": name}, number % 2) for number, name in enumerate("abcd")]


@given(rows)
def test_global_entropy_is_that_of_the_predicted_labels(probabilities: list[list[float]]) -> None:
    """The entropy of how often each label is the most probable one."""
    counts = Counter(max(range(3), key=lambda label: (row[label], -label)) for row in probabilities)
    shares = [count / len(probabilities) for count in counts.values()]
    assert global_entropy(probabilities) == pytest.approx(-sum(share * math.log(share) for share in shares))


@given(rows)
def test_local_entropy_is_the_mean_of_the_queries_entropies(probabilities: list[list[float]]) -> None:
    """Each query's own distribution counts."""
    entropies = [-sum(p * math.log(p) for p in row) for row in probabilities]
    assert local_entropy(probabilities) == pytest.approx(sum(entropies) / len(entropies))


def test_measures_at_their_ends() -> None:
    """All one label is 0 nats, all labels alike log V; the two measures differ where the model is sure and balanced."""
    sure = [[1.0, 0.0], [0.0, 1.0]]
    assert global_entropy(sure) == pytest.approx(math.log(2))
    assert local_entropy(sure) == 0
    assert global_entropy([[0.5, 0.5]] * 3) == 0
    assert local_entropy([[0.5, 0.5]] * 3) == pytest.approx(math.log(2))


def answers(asked: Sequence[Asked]) -> list[list[float]]:
    """Distributions drawn from the query and the sequence of demonstrations; refuses to see an answer."""
    assert all(query.label is None for query, _ in asked)
    keys = [(query.fields["text"], "".join(record.id for record in shown)) for query, shown in asked]
    shares = [(hash_order(*key)[0] + 0.5) / 256 for key in keys]
    return [[share, 1 - share] for share in shares]


@pytest.mark.parametrize(("search", "measure"), [("global", global_entropy), ("local", local_entropy)])
def test_search_equals_brute_force(search: str, measure: object) -> None:
    """All 24 orders, measured one by one on the queries written after all of them."""

    def write(sequences: Sequence[tuple[Record, ...]]) -> list[Record]:
        return [Record("p", {"text": shown[0].id + shown[-1].id}, 1) for shown in sequences[:7]]

    found = search_orders(CHOSEN, all_orders(4), write_queries=write, probabilities=answers, search=search)
    permutations = list(itertools.permutations(CHOSEN))
    queries = [Record("p", {"text": shown[0].id + shown[-1].id}, None) for shown in permutations[:7]]
    expected = {
        number: round(measure(answers([(query, shown) for query in queries])), 9)  # type: ignore[operator]
        for number, shown in enumerate(permutations)
    }
    assert [(each.order, each.entropy) for each in found] == sorted(
        expected.items(), key=lambda item: (-item[1], item[0])
    )
    assert len({each.entropy for each in found}) > 1


def test_search_takes_some_orders() -> None:
    """Orders that are not asked for are neither written after nor ranked."""
    seen: list[str] = []

    def write(sequences: Sequence[tuple[Record, ...]]) -> list[Record]:
        seen.extend("".join(record.id for record in shown) for shown in sequences)
        return [Record("p", {"text": "x"}, None)]

    found = search_orders(CHOSEN, [5, 0], write_queries=write, probabilities=answers, search="local")
    assert seen == ["adcb", "abcd"]
    assert {each.order for each in found} == {5, 0}


def test_errors_of_a_search() -> None:
    """No query, an unknown search, too few answers and orders that do not exist are explained."""

    def write(sequences: Sequence[tuple[Record, ...]]) -> list[Record]:
        return [Record("p", {"text": "x"}, None)]

    with pytest.raises(SelectionError, match="the model wrote no query to try orders on; raise `samples`"):
        search_orders(CHOSEN, [0], write_queries=lambda sequences: [], probabilities=answers)
    with pytest.raises(SelectionError, match=r"unknown order search 'globale'; known: global, local\. Did you mean"):
        rank_orders({0: [[1.0]]}, "globale")
    with pytest.raises(SelectionError, match="gave 0 answers to 2 questions"):
        search_orders(CHOSEN, [0, 1], write_queries=write, probabilities=lambda asked: [])
    with pytest.raises(SelectionError, match="order 24 was asked for"):
        search_orders(CHOSEN, [24], write_queries=write, probabilities=answers)
    with pytest.raises(SelectionError, match="no probing query was answered"):
        local_entropy([])
    with pytest.raises(SelectionError, match="a probing query has no choices"):
        global_entropy([[]])


@pytest.fixture(scope="module")
def tiny() -> Model:
    """The model that ships."""
    return load_model("tiny")


def films() -> tuple[BoundTemplate, list[Record]]:
    """The project's template, and its training records."""
    bound = load_template("films/plain").bind(load_task("films"))
    return bound, [Record(f"t{n}", {"text": text}, label) for n, (text, label) in enumerate(SENTENCES)]


def test_choice_probabilities_are_the_scores_shares(project: Project, tiny: Model) -> None:
    """Likelihoods over their sum; prompts come in the sequence of the questions, without the answer."""
    bound, pool = films()
    seen: list[Prompt] = []

    def scored(prompts: list[Prompt]) -> object:
        seen.extend(prompts)
        return score(tiny, prompts)

    asked: list[Asked] = [(pool[0], (pool[1], pool[2])), (pool[3], ())]
    found = ChoiceProbabilities(bound, scored)(asked)  # type: ignore[arg-type]
    assert [prompt.text for prompt in seen] == [render_text(bound, query, shown) for query, shown in asked]
    assert [prompt.label for prompt in seen] == [None, None]
    for row, logprobs in zip(found, score(tiny, seen).logprobs, strict=True):
        likelihoods = [math.exp(value) for value in logprobs]
        assert row == pytest.approx([value / sum(likelihoods) for value in likelihoods])


def test_probabilities_of_very_unlikely_choices_add_up_to_one() -> None:
    """Log-likelihoods far below what a float's exponential holds are still compared."""

    class Table:
        logprobs = ((-2000.0, -2001.0),)

    bound = load_template("sentiment/plain").bind(load_task("reviews"))
    row = ChoiceProbabilities(bound, lambda prompts: Table())([(CHOSEN[0], ())])[0]
    assert row == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))])


def test_written_queries_fit_the_template_and_come_from_what_stands_before(project: Project, tiny: Model) -> None:
    """One line of text per field, no label; the same again for the same seed, another for another or another order."""
    bound, pool = films()
    sequences = [permute(pool[:3], number) for number in range(4)]
    writer = ProbingWriter(tiny, bound, samples=2, max_tokens=12)
    written = writer(sequences)
    assert 4 <= len(written) <= 8
    assert all(list(each.fields) == ["text"] and each.label is None for each in written)
    assert all(each.fields["text"].strip() and "\n" not in each.fields["text"] for each in written)
    texts = [each.fields["text"] for each in written]
    assert [each.fields["text"] for each in ProbingWriter(tiny, bound, samples=2, max_tokens=12)(sequences)] == texts
    alone = [each.fields["text"] for number in (3, 2, 1, 0) for each in writer(sequences[number : number + 1])]
    assert sorted(alone) == sorted(texts)
    assert len(set(texts)) > len(texts) // 2
    assert [each.fields["text"] for each in ProbingWriter(tiny, bound, seed=1, max_tokens=12)(sequences)] != texts[::2]


def test_writing_leaves_the_random_state_and_the_networks_mode(project: Project, tiny: Model) -> None:
    """Nothing outside notices that a model wrote."""
    import torch

    bound, pool = films()
    before = torch.random.get_rng_state()
    tiny.network.train()
    try:
        ProbingWriter(tiny, bound, max_tokens=4)([tuple(pool[:2])])
        assert tiny.network.training
    finally:
        tiny.network.eval()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_search_with_the_model_itself(project: Project, tiny: Model) -> None:
    """Writer, scorer and search fit together, and say the same twice."""
    bound, pool = films()

    def found() -> object:
        return search_orders(
            pool[:3],
            all_orders(3),
            write_queries=ProbingWriter(tiny, bound, max_tokens=8),
            probabilities=ChoiceProbabilities(bound, partial(score, tiny)),
            search="local",
        )

    assert found() == found()
    assert len(found()) == 6  # type: ignore[arg-type]


def test_input_parts_are_the_text_before_every_field(project: Project) -> None:
    """In the template's sequence, a field as often as it is shown; labels are text, not a field."""
    project.write(
        "templates/films/twice.jinja",
        "{% macro input(text, labels) %}{{ labels | either }}?\nOnce: {{ text }}\nTwice: {{ text }}.{% endmacro %}"
        "{% macro target(label) %} {{ label }}{% endmacro %}",
    )
    bound = load_template("films/twice").bind(load_task("films"))
    assert input_parts(bound) == [("negative or positive?\nOnce: ", "text"), ("\nTwice: ", "text")]


def test_templates_that_cannot_be_written_are_refused(project: Project, tiny: Model) -> None:
    """A field that is changed when shown, a task without labels, and demonstrations that fill the window."""
    project.write(
        "templates/films/first.jinja",
        "{% macro input(text) %}{{ text | replace('\ue000', '') }}:{% endmacro %}"
        "{% macro target(label) %} {{ label }}{% endmacro %}",
    )
    with pytest.raises(TemplateError, match="films/first': the field 'text' does not appear as it is"):
        input_parts(load_template("films/first").bind(load_task("films")))
    words = load_template("word-problems/plain").bind(load_task("word-problems"))
    with pytest.raises(TemplateError, match="needs a task with fixed labels; task 'word-problems' has none"):
        ProbingWriter(tiny, words)([()])
    bound, pool = films()
    with pytest.raises(WindowError, match=r"leave no room in the window of \d+ tokens"):
        ProbingWriter(tiny, bound)([tuple(pool) * 60])
