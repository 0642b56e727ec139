"""Show computed figures to a person: tables, drawings, progress, coloured prompts, a page."""
