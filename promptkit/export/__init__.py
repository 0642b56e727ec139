"""Write rows into the files, folders and repositories that other programs read."""
