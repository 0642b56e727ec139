"""Convert training pairs to the rows that other trainers read, and such rows back to pairs.

A format changes how a pair's texts are laid out, never the texts: what comes back has the same characters, so the same
token ids. What a format has no place for is refused; but for `openai`, which has none for choices: its labels are read
back as free text, behind which an end is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from promptkit.errors import DataError, nearest
from promptkit.prompts.pair import Pair, move_pair_join
from promptkit.prompts.prompt import Message
from promptkit.storage.row_folders import iterate_rows

Row = Mapping[str, Any]
Turn = dict[str, Any]
#: The columns of a pair's own row that hold its texts. A format has columns of its own in their place.
TEXTS = ("prompt", "completion", "messages")
#: Formats of chat turns: a pair without turns becomes one user's turn and the answer.
CHAT_FORMATS = ("messages", "sharegpt", "openai")
#: Formats of plain text: chat turns have no place in them.
TEXT_FORMATS = ("alpaca", "text")
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_ORIGINS = ("task", "task_hash", "template", "template_hash")
_LEARNED = "promptkit learns a row's last answer and nothing before it"
#: Columns, and keys of a turn, that say what is asked in words that a pair has no place for: tools and their calls,
#: pictures, settings of a chat template.
_UNPLACED = (
    *("tools", "functions", "tool_calls", "function_call", "tool_choice", "chat_template_kwargs"),
    *("images", "image", "videos", "video", "audios", "audio"),
)
#: Columns that only some formats give a meaning to; in the others they would be dropped without a word.
_OF_FORMATS = {"system": ("messages", "sharegpt", "alpaca"), "history": ("alpaca",)}
#: Keys by which trainers say of a turn or a row whether it is learned, with what each says where it is true or 1.
_MARKS = {
    **dict.fromkeys(("weight", "loss", "loss_weight", "train", "training", "trainable", "learn"), True),
    **dict.fromkeys(("loss_mask", "kto_tag"), True),
    **dict.fromkeys(("mask", "masked"), False),
}
#: Marks as CSV files hold them.
_TRUTHS = {"false": False, "0": False, "0.0": False, "true": True, "1": True, "1.0": True}
#: What a column holds that is there and says nothing, as CSV files and other people's scripts write it.
_SAYS_NOTHING = ("", "[]", "{}", "null", "None")


def export_rows(rows: Iterable[Row], format_: str) -> Iterator[dict[str, Any]]:
    """Yield pairs' rows in another format, one at a time; see `FORMATS` for the names.

    Columns beside the texts (id, label, choices, where a row came from) stay, but in `openai`, which takes none.
    Raises DataError for an unknown format, and for a row that is no pair.
    """
    if format_ not in FORMATS:
        raise DataError(f"no format {format_!r}; allowed: {', '.join(FORMATS)}.{nearest(format_, FORMATS)}")
    write = FORMATS[format_]
    for number, row in enumerate(rows, 1):
        for name in ("prompt", "completion"):
            if not isinstance(row.get(name), str):
                raise DataError(f"row {number}: no {name!r}: only training pairs can be exported as {format_}")
        if not row["completion"]:
            raise DataError(f"row {number} (id {row.get('id')!r}): the completion is empty: nothing could be learned")
        yield write(row)


def _write_prompt_completion(row: Row) -> dict[str, Any]:
    row = _in_chat_form(row)
    turns = row.get("messages")
    prompt, completion = (turns, _answer(row)) if turns else (row["prompt"], row["completion"])
    return _lay_out(row, prompt=prompt, completion=completion)


def _write_messages(row: Row) -> dict[str, Any]:
    row = _in_chat_form(row)
    return _lay_out(row, messages=_turns(row))


def _write_alpaca(row: Row) -> dict[str, Any]:
    row = _in_plain_form(row)
    instruction, query = _split_instruction(row)
    return _lay_out(row, instruction=instruction, input=query, output=row["completion"])


def _write_sharegpt(row: Row) -> dict[str, Any]:
    row = _in_chat_form(row)
    turns = [{"from": _SPEAKERS[turn["role"]], "value": turn["content"]} for turn in _turns(row)]
    return _lay_out(row, conversations=turns)


def _write_openai(row: Row) -> dict[str, Any]:
    turns = _turns(_in_chat_form(row))
    if sum(turn["role"] == "assistant" for turn in turns) > 1:  # or the demonstrations' answers would be learned too
        turns = [{**turn, "weight": int(turn is turns[-1])} if turn["role"] == "assistant" else turn for turn in turns]
    return {"messages": turns}


def _write_text(row: Row) -> dict[str, Any]:
    row = _in_plain_form(row)
    text = row["prompt"] + row["completion"]
    return _lay_out(row, text=text, spans=[[len(row["prompt"]), len(text)]])


#: Name -> what writes a pair's row in that format.
FORMATS: dict[str, Callable[[Row], dict[str, Any]]] = {
    "prompt-completion": _write_prompt_completion,
    "messages": _write_messages,
    "alpaca": _write_alpaca,
    "sharegpt": _write_sharegpt,
    "openai": _write_openai,
    "text": _write_text,
}


def _lay_out(row: Row, **texts: Any) -> dict[str, Any]:
    """Return the row with other columns for its texts, which stand behind the id."""
    first = {"id": row["id"]} if "id" in row else {}
    return {**first, **texts, **{name: value for name, value in row.items() if name not in ("id", *TEXTS)}}


def _in_chat_form(row: Row) -> Row:
    """Return a row of turns with the white space that joins prompt and completion at the end of the prompt.

    A row without turns becomes one user's turn and the answer, as it is: what it says is plain text.
    """
    if not row.get("messages"):
        return row
    choices = row.get("choices") or ()
    moved = move_pair_join(row["prompt"], row["completion"], choices)
    return {**row, **dict(zip(("prompt", "completion", *(["choices"] if choices else [])), moved, strict=False))}


def _in_plain_form(row: Row) -> Row:
    """Return the row with that white space in front of the completion and its choices, where turns tell what it is."""
    prompt, completion, choices = row["prompt"], row["completion"], row.get("choices") or ()
    if not row.get("messages"):
        return row
    own = str(row["messages"][-1]["content"])
    stem = prompt.rstrip()
    space = prompt[len(stem) + len(own) - len(own.rstrip()) :] if stem.endswith(own.rstrip()) else ""
    plain = {"prompt": prompt[: len(prompt) - len(space)], "completion": space + completion}
    return {**row, **plain, **({"choices": [space + each for each in choices]} if completion in choices else {})}


def _answer(row: Row) -> list[Turn]:
    return [{"role": "assistant", "content": row["completion"]}]


def _turns(row: Row) -> list[Turn]:
    """Return the whole chat; a pair without turns is one user's turn and the answer."""
    asked = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
    return [*asked, *_answer(row)]


def _split_instruction(row: Row) -> tuple[str, str]:
    """Return (instruction, input) that a newline between them makes the prompt again; all is instruction if in doubt.

    The instruction is told by the system turn, where the row has one.
    """
    prompt, turns = row["prompt"], row.get("messages") or [{"role": "user"}]
    head = turns[0]["content"] if turns[0]["role"] == "system" else ""
    rest = prompt.removeprefix(head) if head else ""
    query = rest.lstrip("\n")
    if not query or len(query) == len(rest) or len(rest) == len(prompt):
        return prompt, ""
    return prompt[: -len(query) - 1], query


def pair_from_row(row: Row, number: int, *, chat: bool = False, place: str = "") -> Pair:
    """Return the pair of a row in any of the formats, or of a pair's own row; which, its columns tell.

    `number` counts rows from 0: the id of a row without one. `place` is how an error names the row. With `chat` the
    pair needs the row's turns (an Alpaca row is one user's turn). Without, it needs the prompt as text, which a row
    of several turns does not know.

    Raises DataError for a row that is none of them, that says something a pair has no place for, or that has no
    text to learn or, with `chat`, no turns.
    """
    where = place or f"training row {number + 1}"
    if not isinstance(row, Mapping):
        raise DataError(f'{where} is a {type(row).__name__}: expected a Pair or {{"prompt": text, "completion": text}}')
    given = {name: value for name, value in row.items() if value is not None}
    try:
        format_ = _tell_format(given)
        _check_columns(given, format_)
        prompt, turns, completion = _READERS[format_](given)
        if prompt is None and not chat:
            raise DataError("chat turns only, no prompt as plain text: train with --chat (chat=True)")
        choices, ids = _texts(given, "choices"), _texts(given, "demonstration_ids")
        names = {name: _text({name: "", **given}, name) for name in _ORIGINS}
        check_choices(choices, given.get("label"))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    pair = Pair(
        id=str(given.get("id", number)),
        prompt=prompt or "",
        completion=completion,
        label=given.get("label"),
        messages=tuple(Message(turn["role"], turn["content"]) for turn in turns),
        demonstration_ids=ids,
        **names,
        choices=choices,
    )
    check_pair(pair, where, chat=chat)
    return pair


def read_pair_rows(path: Path, *, chat: bool = False) -> Iterator[Pair]:
    """Yield the pairs of a file or folder of rows (see `promptkit.storage.row_folders`), one at a time.

    Raises DataError, with the place, for what is not there, not whole or not a pair.
    """
    for number, (place, row) in enumerate(iterate_rows(path)):
        yield pair_from_row(row, number, chat=chat, place=place)


def check_pair(pair: Pair, where: str, *, chat: bool = False) -> None:
    """Raise DataError where a pair has no text to learn or, with `chat`, no turns."""
    where = f"{where} (id {pair.id!r})"
    if not pair.completion:
        raise DataError(f"{where}: the completion is empty: expected at least one character to learn")
    if chat and not pair.messages:
        raise DataError(f"{where}: no messages: build the pairs with chat=True, or train on plain text")


#: What a row says: its prompt as text (None where it has turns only), its turns before the answer, the answer.
Said = tuple[str | None, list[Turn], str]


def _tell_format(row: Row) -> str:
    """Return the name of the reader for a row's columns."""
    if "prompt" in row or "completion" in row:
        return "prompt-completion"
    columns = {
        "messages": {"messages"},
        "sharegpt": {"conversations"},
        "alpaca": {"instruction", "output"},
        "text": {"text", "spans"},
    }
    found = [name for name, needed in columns.items() if needed <= row.keys()]
    if len(found) == 1:
        return found[0]
    if "text" in row and not found:
        raise DataError("'text' without 'spans': expected the [start, end] in characters of what is to be learned")
    raise DataError(
        f"found {', '.join(map(repr, row)) or 'nothing'}: expected one of prompt and completion; messages; "
        "conversations; instruction, input and output; text and spans"
    )


def _read_prompt_completion(row: Row) -> Said:
    if isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
        said = _read_turns([*row["prompt"], *row["completion"]], "prompt")
        if len(row["completion"]) > 1:
            raise DataError(f"'completion' has {len(row['completion'])} turns: expected the answer alone; {_LEARNED}")
        return said
    prompt, completion = _text(row, "prompt"), _text(row, "completion")
    turns = row.get("messages") or []
    if not _are_objects(turns):
        raise DataError(f"'messages' is {turns!r}: expected a list of objects with role and content")
    read = [read_turn(turn) for turn in turns]
    for turn, marked in zip(read, turns, strict=True):
        _check_marks(marked, learned=False, what=f"'messages' has a {turn['role']}'s turn")
    return prompt, read, completion


def _read_messages(row: Row) -> Said:
    turns = row["messages"]
    return _read_turns(_add_system(row, turns) if _are_objects(turns) else turns, "messages")


def _read_sharegpt(row: Row) -> Said:
    turns = row["conversations"]
    if not _are_objects(turns):
        raise DataError(f"'conversations' is {turns!r}: expected a list of objects with from and value")
    return _read_turns(_add_system(row, [_rename(turn) for turn in turns]), "conversations")


def _add_system(row: Row, turns: Sequence[Row]) -> list[Row]:
    """Return the turns behind that of the column `system`, where it is filled."""
    system = row.get("system")
    if not is_filled(system):
        return [*turns]
    if turns and turns[0].get("role") == "system" and turns[0].get("content") != system:
        raise DataError("both a column 'system' and a system's turn, with other texts: keep one of them")
    return [{"role": "system", "content": system}, *(turn for turn in turns if turn.get("role") != "system")]


def _rename(turn: Row) -> Turn:
    """Return a turn of ShareGPT as one of everybody else's."""
    names = {"from": "role", "value": "content"}
    renamed = {names.get(name, name): value for name, value in turn.items()}
    role = renamed.get("role")
    return {**renamed, "role": _ROLES.get(role, role) if isinstance(role, str) else role}


def _read_alpaca(row: Row) -> Said:
    query = "\n".join(text for text in (_text(row, "instruction"), _text({"input": "", **row}, "input")) if text)
    turns: list[Row] = _add_system(row, ())
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(said, list) and len(said) == 2 for said in history):
        raise DataError(f"'history' is {history!r}: expected a list of [question, answer]")
    for said in (*history, (query, _text(row, "output"))):
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True)]
    return _read_turns(turns, "history")


def _read_text(row: Row) -> Said:
    text, spans = _text(row, "text"), row["spans"]
    try:
        [(start, end)] = spans
        fits = type(start) is type(end) is int and 0 <= start < end == len(text)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise DataError(
            f"'spans' is {spans!r}: expected one [start, end], in characters, that ends with the text "
            f"({len(text)} characters)"
        )
    return text[:start], [], text[start:]


_READERS: dict[str, Callable[[Row], Said]] = {
    "prompt-completion": _read_prompt_completion,
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
    "text": _read_text,
}


def _read_turns(turns: Any, column: str) -> Said:
    """Return what a chat says whose last turn is the answer; a single user's turn is a plain prompt as well."""
    if not turns or not _are_objects(turns):
        raise DataError(f"{column!r} is {turns!r}: expected a list of objects with role and content")
    read = [read_turn(turn) for turn in turns]
    *asked, answer = read
    if answer["role"] != "assistant" or not asked:
        roles = ", ".join(turn["role"] for turn in read)
        raise DataError(f"{column!r} has the turns {roles}: expected a user's, and an assistant's at the end to learn")
    for turn, marked in zip(read, turns, strict=True):
        _check_marks(marked, learned=turn is answer, what=f"{column!r} has a {turn['role']}'s turn")
    plain = [turn["role"] for turn in asked] == ["user"]
    return asked[0]["content"] if plain else None, asked, answer["content"]


def read_turn(turn: Row) -> Turn:
    """Return the role and the text of a turn; raises DataError for another role, content that is no text, and more."""
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or role not in _SPEAKERS:
        raise DataError(f"a turn of {role!r}: expected one of {', '.join(_SPEAKERS)}")
    more = [name for name, value in turn.items() if name not in ("role", "content", *_MARKS) and is_filled(value)]
    if more:
        raise DataError(f"a turn with {', '.join(map(repr, more))}, which has no place in a training pair")
    if not isinstance(content, str):
        raise DataError(f"a turn whose content is {content!r:.100}: expected text")
    return {"role": role, "content": content}


def _check_marks(marked: Row, *, learned: bool, what: str) -> None:
    """Raise DataError where a turn is marked to be learned and is not, or the other way round."""
    for name, when_true in _MARKS.items():
        mark = marked.get(name)
        if mark is not None and mark != (learned is when_true):
            raise DataError(f"{what} of {name} {mark!r:.60}: {_LEARNED}")


def _check_columns(row: Row, format_: str) -> None:
    """Raise DataError for a filled column that would be dropped, and for one by which the row is not to be learned."""
    refuse_unplaced(row)
    for name, formats in _OF_FORMATS.items():
        if format_ not in formats and is_filled(row.get(name)):
            raise DataError(f"{name!r} is {row[name]!r:.60}, which has no place in a row of {format_}: remove it")
    for name, when_true in _MARKS.items():
        mark = row.get(name)
        said = _TRUTHS.get(mark.strip().casefold(), mark) if isinstance(mark, str) else mark
        if isinstance(said, bool | int | float if name == "weight" else bool) and said != when_true:
            raise DataError(f"{name!r} is {mark!r}: every row is learned, and counts the same: leave the row out")


def refuse_unplaced(row: Row) -> None:
    """Raise DataError for a filled column of tools, pictures or settings of a chat template."""
    for name in _UNPLACED:
        if is_filled(row.get(name)):
            raise DataError(f"{name!r} is {row[name]!r:.60}, which has no place here: remove it")


def is_filled(value: Any) -> bool:
    """Return whether a value says something: not null, false, empty, nor a list or mapping of such values alone."""
    if isinstance(value, str):
        return value.strip() not in _SAYS_NOTHING
    if isinstance(value, Mapping):
        return any(map(is_filled, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_filled, value))
    return value is not None and value is not False


def _are_objects(turns: Any) -> bool:
    return isinstance(turns, list | tuple) and all(isinstance(turn, Mapping) for turn in turns)


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        found = f"is {value!r}" if name in row else f"is missing, found {', '.join(map(str, row))}"
        raise DataError(f"{name!r} {found}: expected text")
    return value


def check_choices(choices: Sequence[str], label: object, *, named: bool = True) -> None:
    """Raise DataError for an empty choice, and for a label that is none of them.

    A label is an index into the choices or, where there are none or it may be `named`, text.
    """
    if "" in choices:
        raise DataError(f"choice {choices.index('')} is empty: expected at least one character")
    if label is None or (isinstance(label, str) and (named or not choices)):
        return
    is_index = isinstance(label, Integral) and not isinstance(label, bool)
    if not is_index or not (0 <= label < len(choices) if choices else named):  # type: ignore[operator]
        allowed = f"an index from 0 to {len(choices) - 1}" if choices else "text"
        raise DataError(f"label {label!r:.60} is not {allowed}")


def _texts(row: Row, name: str) -> tuple[str, ...]:
    values = row.get(name) or []
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise DataError(
            f"{name!r} is {values!r}: expected a list of texts, which CSV files cannot hold; use JSON Lines"
        )
    return tuple(values)
