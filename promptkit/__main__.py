"""`python -m promptkit`, which launchers of several processes start: the command line."""

from promptkit.cli import main

main()
