"""A study's finished cells into the object that `--json` prints: what it tells, and how sure that is."""
