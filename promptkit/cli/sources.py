"""An argument that is a task or a file of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptkit.files import is_there


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
