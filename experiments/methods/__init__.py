"""The methods an experiment can train with."""

from experiments.methods.method import Hyperparameters as Hyperparameters
from experiments.methods.method import Method as Method
from experiments.methods.registry import METHODS as METHODS
from experiments.methods.registry import find_method as find_method
from experiments.methods.registry import known_methods as known_methods
