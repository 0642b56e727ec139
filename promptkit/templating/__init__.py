"""Load template files, run them in a sandbox, bind them to a task, and put them in other formats."""
