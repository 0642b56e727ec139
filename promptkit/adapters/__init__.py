"""Keep a trained adapter in a folder with its card; load it, check it, merge it."""
