"""Ports to what can be tried out: asked for as little as shows that it is there and lets us in.

`lodestar check --online` asks them. An engine of SQL needs none: it is asked for one row that no table
holds. An adapter without its port is told as one that cannot be checked.
"""

from typing import Protocol, runtime_checkable

from lodestar.settings.features import FeatureView

__all__ = ["ProbesNamespace", "ProbesPlace"]


@runtime_checkable
class ProbesPlace(Protocol):
    """A writer that can try a place out: a folder, a bucket, a database's schema."""

    def probe(self, place: str) -> str:
        """Write something tiny of its own there, read it, remove it; what was done, in a few words.

        Nothing is left behind, and nothing that is there is touched.

        Raises:
            LodestarError: one of the three cannot be done.
        """
        ...


@runtime_checkable
class ProbesNamespace(Protocol):
    """An online store that can try out where a namespace's values stand."""

    def probe(self, view: FeatureView) -> str:
        """Keep a value under a name that no entity has, read it, remove it; what was done, in words.

        Raises:
            LodestarError: one of the three cannot be done within the store's deadline.
        """
        ...
