"""Lodestar: one recipe, one config per environment, one artifact that batch and API both run."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("lodestar-ml")
except PackageNotFoundError:
    # Inside an artifact the package travels as source, without its distribution metadata.
    __version__ = "0+carried"
