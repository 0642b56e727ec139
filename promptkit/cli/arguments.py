"""Tell whether an argument names a task or a file of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptkit.cli.output import echo
from promptkit.storage.files import is_there


def is_rows(source: str) -> bool:
    """Whether an argument names a file of rows rather than a task."""
    return source.endswith(".jsonl") or (is_there(Path(source)) and not source.endswith(".toml"))


def for_rows(settings: dict[str, Any], verb: str) -> dict[str, Any]:
    """Drop the options that only a task has a use for; a usage error where one was given."""
    kept = {
        "score": {
            *("model", "chat", "system", "dtype", "device", "batch_tokens", "memory", "limit", "calibrate"),
            "trust_remote_code",
            *("samples", "temperature", "top_p", *(["seed"] if settings.get("samples", 1) > 1 else [])),
        },
        "train": set(settings) - {"templates", "data", "balance"},
    }[verb]
    context = click.get_current_context()
    for option in sorted(context.command.params, key=lambda option: option.name or ""):
        given = context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and option.name in settings.keys() - kept:
            names = option.secondary_opts if settings[option.name] is False else option.opts
            raise click.UsageError(f"{max(names, key=len)} goes with a task, not with a file of rows")
    return {name: value for name, value in settings.items() if name in kept}


def is_given(name: str) -> bool:
    """Return whether an option of the running command stands on the command line."""
    context = click.get_current_context()
    return context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)


def check_shown(settings: dict[str, Any]) -> None:
    """Raise PromptkitError for an option of demonstrations that was given where none are shown."""
    from promptkit.experiments.training_options import Scene, check_effects

    given = [name for name in ("selection", "order", "train_limit") if name in settings and is_given(name)]
    check_effects(given, Scene(("few-shot",), settings["shots"]))


def follow_card(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the options with the form that a model was trained in, where it is promptkit's and no other was given.

    The form is chat or plain, the turn that holds the instruction and, of the task that was trained on, the template. A
    line on stderr says what was taken over. Rows of a file are asked in chat where they have turns.
    """
    from promptkit.adapters.card import card_of
    from promptkit.data.tasks import load_task

    card = card_of(settings["model"])
    if card is None:
        return settings
    trained = card.settings
    form: dict[str, Any] = {"chat": trained.chat}
    if trained.chat and "system" in settings:
        form["system"] = trained.system
    if is_rows(source):
        form = form if not trained.chat or _has_turns(Path(source)) else {}
    elif card.template and "," not in card.template:
        task = load_task(source)
        if task.name == card.task and card.template != f"{task.templates}/plain":
            form["templates"] = (card.template,)
    taken = {name: value for name, value in form.items() if value != settings[name] and not is_given(name)}
    if taken:
        said = [f"template {taken['templates'][0]}"] if "templates" in taken else []
        said += ["chat turns" if taken["chat"] else "plain text"] if "chat" in taken else []
        said += [f"the instruction in the {taken['system']}'s turn"] if "system" in taken else []
        echo(f"note: {settings['model']} is asked as it was trained, with {' and '.join(said)}", err=True)
    return {**settings, **taken}


def _has_turns(path: Path) -> bool:
    from promptkit.storage.rows import number_rows

    return next((bool(row.get("messages")) for _, row in number_rows(path)), False)
