"""The only place that picks classes: from recipe and config to the objects that do the work."""

from lodestar.factory.environment import EnvironmentFactory, Loader, Spine
from lodestar.factory.recipe import Factory, Hyperparameters

__all__ = ["EnvironmentFactory", "Factory", "Hyperparameters", "Loader", "Spine"]
