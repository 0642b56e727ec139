"""Say which version of promptkit this is."""

__version__ = "0.1.0"
