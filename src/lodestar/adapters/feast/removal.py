"""Removes the rows of namespaces from Feast's layout in Redis: theirs alone.

Feast's own removal takes every key that ends with the project's name for the project's, so that `shop`
loses what `workshop` has.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from lodestar.adapters.feast.layout import field_of, is_entity_key, key_head

__all__ = ["remove_rows"]

AT_ONCE = 1_000
# What means something else in a pattern of Redis's.
_SPECIAL = re.compile(rb"[\\*?\[\]^-]")


def remove_rows(client: Any, views: Sequence[Any], project: str) -> None:  # noqa: ANN401 -- redis-py's, Feast's
    """Scan once for each view; a Cluster's client scans all of its nodes."""
    for view in views:
        keys = sorted(view.join_keys)
        times = (f"_ts:{view.name}".encode(), f"_created:{view.name}".encode())
        fields = [*(field_of(view.name, feature.name) for feature in view.features), *times]
        found = _entities(client, keys, project)
        while some := list(islice(found, AT_ONCE)):
            with client.pipeline(transaction=False) as pipe:
                for key in some:  # a hash that has nothing left is gone
                    pipe.hdel(key, *fields)
                pipe.execute()


def _entities(client: Any, keys: Sequence[str], project: str) -> Iterator[bytes]:  # noqa: ANN401 -- redis-py's
    head = _SPECIAL.sub(rb"\\\g<0>", key_head(keys))
    pattern = head + b"*" + _SPECIAL.sub(rb"\\\g<0>", project.encode())
    for key in client.scan_iter(match=pattern, count=AT_ONCE):
        if is_entity_key(key, keys, project):
            yield key
