"""What the command line's smaller verbs return: one function a verb, free of any printing."""
