"""Ask other libraries for their versions, and keep them quiet."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PACKAGES = ("promptkit", "torch", "transformers", "peft", "datasets")


def versions() -> dict[str, str]:
    """Return the versions of the packages that figures depend on, and of Python, importing none of them."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers write neither hints nor progress bars to the terminal meanwhile."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
