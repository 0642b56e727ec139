"""The command line of promptkit."""

from promptkit.cli.main import cli, main

__all__ = ["cli", "main"]
