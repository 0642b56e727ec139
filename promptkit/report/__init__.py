"""Computed figures into what a person reads: tables, drawings, progress, coloured prompts."""
