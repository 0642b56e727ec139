"""What the command line's smaller verbs return: one function a verb, free of any printing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptkit.build import (
    Demonstrations,
    default_selection,
    iterate_pairs,
    iterate_prompts,
    no_demonstrations,
)
from promptkit.compare import compare
from promptkit.data import count_records, iterate_records, load_records, number_rows
from promptkit.errors import DataError, PromptkitError, RunError, TemplateError
from promptkit.evaluate import Progress
from promptkit.grid import find_presets, load_settings
from promptkit.order import ORDERS
from promptkit.plan import METHODS
from promptkit.prompt import build_prompt, prompt_row, render_answer, render_pieces
from promptkit.select import SELECTIONS, Draw
from promptkit.task import Task, find_tasks, load_task
from promptkit.template import BoundTemplate, Template, find_templates, load_template, match_templates
from promptkit.work import Track

Rows = Iterator[dict[str, Any]]
#: Records that `predict` scores at a time; results are written as each such part is done.
PREDICT_ROWS = 512


def score_task(task: str, *, shots: Sequence[int], templates: Sequence[str], **settings: Any) -> dict[str, Any]:
    """Return the result of scoring a task under every template and number of shots, without training.

    The object is that of `compare`; with one cell its predictions are in `rows`. Arguments are those of
    `compare`; 0 among `shots` is zero-shot.
    """
    kinds = {bound.template.is_cot for bound in _templates(load_task(task), templates)}
    wanted = {"zero-shot"} if 0 in shots else set()
    wanted |= {"few-shot"} if any(shots) else set()
    methods = [name for name, reasons in METHODS.items() if reasons in kinds and name.removesuffix("-cot") in wanted]
    settings["order"] = settings.get("order") or "given"
    few = tuple(k for k in shots if k)
    return compare(task, methods=tuple(methods), templates=tuple(templates), shots=few or (1,), rows=True, **settings)


def train_source(
    source: str,
    *,
    model: str,
    templates: Sequence[str] = (),
    data: str | None = None,
    seed: int = 0,
    chat: bool = False,
    dtype: str = "float32",
    device: str | None = None,
    train_limit: int | None = None,
    out: str | None = None,
    track: Track | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train one adapter on a task's training split, or on the rows of a pairs file; return what came out.

    With a task, validation records choose the epoch. `settings` are those of `train`. Raises RunError
    where `out` exists already.
    """
    from promptkit.models import load_model
    from promptkit.train import train

    path = Path(out) if out else Path("adapters") / f"{Path(source).stem}-seed{seed}"
    if path.exists():
        raise RunError(f"{path}: exists already; give another --out, or remove it first")
    validation = None
    if Path(source).is_file() and not source.endswith(".toml"):
        pairs: Iterable[Any] = list(itertools.islice(_read_pairs(Path(source), chat), train_limit))
    else:
        task, bound = load_task(source), _one_template(load_task(source), templates)
        pairs, validation = _training_set(task, bound, data, seed, chat, train_limit)
    adapter = train(
        load_model(model, dtype=dtype, device=device),
        pairs,
        seed=seed,
        chat=chat,
        validation=validation or None,
        out=path,
        progress=track("training") if track else None,
        **settings,
    )
    from promptkit.adapter import read_card

    card = read_card(path)
    return {
        "adapter": str(adapter.path),
        "task": card.task,
        "template": card.template,
        "model": model,
        "rows": adapter.rows,
        "epochs": adapter.epochs,
        "best_epoch": adapter.best_epoch,
        "losses": list(adapter.losses),
        "validation": list(adapter.validation),
        "tokens_trained": adapter.tokens_trained,
        "seconds": adapter.seconds,
    }


def _read_pairs(path: Path, chat: bool) -> Iterator[Any]:
    from promptkit.batches import read_pairs

    for number, row in number_rows(path):
        try:
            yield from read_pairs([row], chat=chat)
        except DataError as error:
            raise DataError(f"{path}:{number}: {str(error).partition(': ')[2] or error}") from error


def _training_set(
    task: Task, bound: BoundTemplate, data: str | None, seed: int, chat: bool, limit: int | None
) -> tuple[list[Any], list[Any]]:
    """Return (pairs, validation prompts); validation comes from its own split or is cut from training."""
    from promptkit.pair import build_pair
    from promptkit.splits import split_validation

    records = load_records(task, "train", data=data)
    own = data is None or Path(data).is_dir()
    validation, kept = split_validation(task, records, data=data, limit=limit, seed=seed, own_split=own)
    pairs = [build_pair(bound, record, chat=chat) for record in kept]
    return pairs, [build_prompt(bound, record, chat=chat) for record in validation]


def predict_file(
    file: str,
    adapter: str,
    *,
    task: str | None = None,
    template: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
    memory: int | None = None,
    track: Track | None = None,
) -> tuple[str, Rows]:
    """Return the task of an adapter and, as an iterator, a row per record of `file` with its predicted label.

    A row is {"id", "predicted": label, "scores": {label: nats}}; "predicted" is None where a free-text
    answer could not be read. `task` and `template` say where those of the training are found now, if not
    under their names. Raises TemplateError where the template has changed since the training.
    """
    from promptkit.adapter import read_card
    from promptkit.models import load_model

    card = read_card(adapter)
    if not card.template or "," in card.template:
        raise RunError(f"{adapter}: was not trained from one template, so records cannot be rendered for it")
    trained, asking = load_task(task or card.task), load_template(template or card.template)
    if asking.hash != card.template_hash:
        raise TemplateError(
            f"{asking.path}: has changed since the adapter {adapter} was trained with it; "
            "restore the file, or train again"
        )
    model = load_model(adapter, dtype=dtype, device=device)
    records = iterate_records(trained, "test", data=file, labelled=False)
    return trained.name, _predict(model, asking.bind(trained), records, card.settings.chat, memory, track)


def _predict(
    model: Any, bound: BoundTemplate, records: Iterable[Any], chat: bool, memory: int | None, track: Track | None
) -> Rows:
    from promptkit.score import score

    iterator = iter(records)
    while part := list(itertools.islice(iterator, PREDICT_ROWS)):
        prompts = [build_prompt(bound, record, chat=chat) for record in part]
        table = score(model, prompts, chat=chat, memory=memory, progress=track("predicting") if track else None)
        for record, prediction in zip(part, table.predictions, strict=True):
            labels = bound.task.labels or record.choices or ()
            index = prediction.predicted
            yield {
                "id": record.id,
                "predicted": labels[index] if isinstance(index, int) else index,
                "scores": {label: round(nats, 6) for label, nats in zip(labels, prediction.logprobs, strict=False)},
            }


def build_rows(
    task: str,
    kind: str,
    *,
    templates: Sequence[str] = (),
    shots: Sequence[int] = (0,),
    track: Track | None = None,
    **settings: Any,
) -> Rows:
    """Yield the rows of a data set of `prompts` or `pairs`, one template and number of shots after the other.

    `settings` are those of `build_prompts` or, where they apply, `build_pairs`.
    """
    loaded = load_task(task)
    settings = {name: value for name, value in settings.items() if value is not None}
    if kind == "pairs":
        unused = [name for name in ("selection", "order", "train_limit") if name in settings]
        if any(shots) or unused:
            raise DataError("training pairs are zero-shot: -k, --selection, --order and --train-limit go with prompts")
    split = settings.get("split") or {"pairs": "train"}.get(kind, "test")
    total = settings.get("limit") or count_records(loaded, split, settings.get("data"))
    for bound in _templates(loaded, templates):
        for k in shots:
            if kind == "pairs":
                rows = iterate_pairs(loaded, bound.template, **settings)
            else:
                rows = map(prompt_row, iterate_prompts(loaded, bound.template, k=k, **settings))
            yield from _tracked(rows, total, track(bound.template.name) if track and total else None)


def _tracked(rows: Iterable[dict[str, Any]], total: int | None, report: Progress | None) -> Rows:
    """Yield rows, reporting every hundredth of them."""
    for done, row in enumerate(rows, 1):
        yield row
        if report and total and (done % max(1, total // 100) == 0 or done == total):
            report(min(done, total), total)


@dataclass(frozen=True)
class View:
    """One prompt as a reader sees it: its parts, its choices and, answer included, its tokens.

    `parts` are (kind, text), `counts` (kind, tokens), `tokens` (text, whether training puts a loss on it).
    """

    id: str
    template: str
    parts: list[tuple[str, str]]
    choices: list[str]
    counts: list[tuple[str, int]]
    tokens: list[tuple[str, bool]]


def show_prompts(
    task: str,
    *,
    model: str = "tiny",
    templates: Sequence[str] = (),
    data: str | None = None,
    shots: Sequence[int] = (0,),
    selection: str | None = None,
    order: str | None = None,
    seed: int = 0,
    split: str = "test",
    chat: bool = False,
    limit: int = 1,
) -> list[View]:
    """Return what the model will see of the first `limit` records, under every template asked for."""
    from promptkit.models import load_encoder

    loaded, encoder = load_task(task), load_encoder(model)
    queries = load_records(loaded, split, data=data, limit=limit, seed=seed, labelled=False)
    give: Callable[..., Any] = no_demonstrations
    if any(shots):
        draw = Draw(selection or default_selection(loaded), order or "given", seed, seed)
        give = Demonstrations(load_records(loaded, "train", data=data), draw)
    return [
        _view(encoder, bound, query, give(query, k), chat)
        for bound in _templates(loaded, templates)
        for k in shots
        for query in queries
    ]


def _view(encoder: Any, bound: BoundTemplate, query: Any, demonstrations: Sequence[Any], chat: bool) -> View:
    prompt = build_prompt(bound, query, demonstrations, chat=chat)
    parts = list(render_pieces(bound, query, demonstrations))
    prefix, completion = prompt.text, ""
    if query.label is not None and (query.rationale is not None or not bound.template.is_cot):
        answer = list(render_answer(bound, query))
        completion = "".join(text for _, text in answer)
        parts += answer
    if chat:
        prefix = encoder.chat_prefix(prompt.messages)
        completion = encoder.chat_completion(prompt.messages, completion) if completion else ""
    counts = [(kind, len(encoder.encode(text, chat=True))) for kind, text in parts]
    return View(
        query.id,
        bound.template.name,
        parts,
        list(prompt.choices),
        counts,
        _tokens(encoder, prefix, completion, chat),
    )


def _tokens(encoder: Any, prefix: str, completion: str, chat: bool) -> list[tuple[str, bool]]:
    if not completion:
        return [(_token_text(encoder, token), False) for token in encoder.encode(prefix, chat=chat)]
    joined = encoder.join(prefix, completion, chat=chat)
    return [(_token_text(encoder, token), index >= joined.start) for index, token in enumerate(joined.ids)]


def _token_text(encoder: Any, token: int) -> str:
    return str(encoder.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def list_names(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Return, per kind of thing that can be named, name -> description."""
    from promptkit.models.source import NAMES

    makers: dict[str, Callable[[], dict[str, str]]] = {
        "tasks": lambda: {name: _described(load_task, name) for name in find_tasks()},
        "templates": lambda: {name: _described(load_template, name) for name in find_templates()},
        "methods": lambda: {name: _METHODS[name] for name in METHODS},
        "selections": lambda: {name: _first_line(function) for name, function in SELECTIONS.items()},
        "orders": lambda: {
            **{name: _first_line(function) for name, function in ORDERS.items()},
            "0, 1, …": _PERMUTATION,
        },
        "presets": lambda: {name: _say_preset(name) for name in find_presets()},
        "models": lambda: (
            dict.fromkeys(NAMES, "ships with promptkit") | {"FOLDER or HUB/ID": "any causal model of transformers"}
        ),
    }
    return {name: make() for name, make in makers.items() if kind in (None, name)}


def _say_preset(name: str) -> str:
    try:
        settings = load_settings(name)
    except PromptkitError as error:
        return f"! {error}"
    return f"{settings.reference.split(',')[0]}: {settings.about}"


def _described(load: Callable[[str], Task | Template], name: str) -> str:
    """Return what a file says of itself, or what is wrong with it: one bad file hides no other."""
    try:
        return load(name).description
    except PromptkitError as error:
        return f"! {error}"


_METHODS = {
    "zero-shot": "the instruction and the query",
    "few-shot": "with k solved demonstrations",
    "zero-shot-cot": "the model reasons first",
    "few-shot-cot": "with k demonstrations that reason first",
    "lora": "an adapter trained on the pairs, prompted zero-shot",
}
_PERMUTATION = "One of the k! permutations by its number."


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _templates(task: Task, patterns: Sequence[str]) -> list[BoundTemplate]:
    """Return the templates that match, or the family's `plain`."""
    return [load_template(name).bind(task) for name in match_templates(patterns or ("plain",), task.templates)]


def _one_template(task: Task, patterns: Sequence[str]) -> BoundTemplate:
    bounds = _templates(task, patterns)
    if len(bounds) > 1:
        names = ", ".join(bound.template.name for bound in bounds)
        raise TemplateError(f"one template is needed to train on, {len(bounds)} match: {names}")
    return bounds[0]
