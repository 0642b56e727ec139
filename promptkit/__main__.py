"""Start the command line: `promptkit`, `python -m promptkit`, and launchers of several processes."""

import sys


def main() -> None:
    """Run it; a stop while it is still being loaded is one line, too."""
    try:
        from promptkit.cli import main as run
    except KeyboardInterrupt:
        print("promptkit: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
