"""Build data sets of prompts and pairs, and mix training sets without copies of what is tested on."""

from promptkit.building.mixture import Mixture, MixturePart, is_mixture, load_mixture, make_mixture
from promptkit.building.training_set import TrainingSet, make_set

__all__ = ["Mixture", "MixturePart", "TrainingSet", "is_mixture", "load_mixture", "make_mixture", "make_set"]
