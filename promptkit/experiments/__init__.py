"""Plan cells, compute them, keep them in a run folder: comparisons and studies."""
