"""Read and write files that are there whole or not at all: rows, JSON, locks, places for unfinished outputs."""
