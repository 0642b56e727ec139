"""Training sets: several templates and tasks, mixed by hashes, without what is tested on, with a manifest."""

from promptkit.sets.mixture import Mixture, Part, is_mixture, load_mixture, make_mixture
from promptkit.sets.training_set import TrainingSet, make_set

__all__ = ["Mixture", "Part", "TrainingSet", "is_mixture", "load_mixture", "make_mixture", "make_set"]
