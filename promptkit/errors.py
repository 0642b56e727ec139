"""Define what a user's file, flag or model can cause, as one tree of exceptions.

PromptkitError
├── TaskError        a task name or a task file
├── TemplateError    a template name, its syntax, a part, a field
├── DataError        records: a file, a line, a column, a label
│   ├── InputError   a file that is no plain file, or too large to be read whole
│   └── RecordError  one record alone: others may be fine
├── SelectionError   demonstrations: k, pool, order
├── WindowError      a prompt longer than the model's window
├── ModelError       a model or tokenizer that cannot be loaded or used
├── TrainError       training rows or settings
├── PatternError     a regular expression of a file
├── StudyError       a grid, its factors, its budget
└── RunError         run folders and output paths

Every message is one line: where, what was found, what was allowed, the fix. The command line
catches `PromptkitError` once, prints the message and exits with 1. A `PromptkitWarning` is one line
of the same kind about something that went on all the same.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class PromptkitError(Exception):
    """The base of everything promptkit raises on purpose."""


class PromptkitWarning(UserWarning):
    """What should be known and does not stop the work; the command line prints it on stderr."""


class TaskError(PromptkitError):
    """A task name or a task file is wrong."""


class TemplateError(PromptkitError):
    """A template is missing, does not compile, or does not fit its task."""


class DataError(PromptkitError):
    """A record cannot be read: the file, line, column or label is named."""


class InputError(DataError, OSError):
    """A file that promptkit does not open: a pipe, a device, a socket, or one too large to be read whole.

    It is an OSError too, whose `strerror` says what is wrong, so whoever reads a file treats it like one that is
    missing.
    """

    def __init__(self, path: object, reason: str) -> None:
        OSError.__init__(self, errno.EINVAL, reason, str(path))

    def __str__(self) -> str:
        """Return the file and what is wrong with it."""
        return f"{self.filename}: {self.strerror}"


class RecordError(DataError):
    """One record cannot be used; others of the same column may be fine."""


class SelectionError(PromptkitError):
    """Demonstrations cannot be chosen or ordered as asked."""


class WindowError(PromptkitError):
    """A prompt does not fit the model's window; nothing is ever cut silently."""


class ModelError(PromptkitError):
    """A model or tokenizer cannot be loaded or used."""


class TrainError(PromptkitError):
    """Training rows or training settings are wrong."""


class PatternError(PromptkitError):
    """A regular expression of a file is not valid, or cannot be run within the limits."""


class StudyError(PromptkitError):
    """A grid of conditions, its factors or its budget cannot be studied as asked."""


class RunError(PromptkitError):
    """A run folder or an output path cannot be used."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest of `names`, or an empty string."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""
