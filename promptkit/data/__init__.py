"""Turn task files and data into records: tasks, labels, answers, splits, generated data."""
