"""Find defects of templates and tasks without a model."""
