"""Objects by one URI: an object, a prefix that ends with a slash, or a pattern that means several."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lodestar.adapters.files.folder import MANIFEST, among, listed
from lodestar.adapters.files.formats import SUFFIXES
from lodestar.adapters.files.patterns import fixed_part, is_pattern, matching
from lodestar.adapters.files.several import SeveralReader, members_of
from lodestar.adapters.objects.places import Place, folder_of, place_of
from lodestar.adapters.objects.rows import ObjectReader, ObjectWriter, Stores
from lodestar.errors import DataError
from lodestar.interface.data import SpineReader
from lodestar.settings.config import Data

__all__ = ["ObjectAdapters"]


@dataclass(frozen=True)
class ObjectAdapters:
    """What the registry asks of one kind of store; `stores` makes them of the config's section."""

    stores: Callable[[Data], Stores]

    def reader(self, data: Data, project: Path, uri: str) -> SpineReader:
        """Reads `scheme://bucket/key`, or the objects of a prefix or pattern.

        Raises:
            DataError: no object is meant, or those that are cannot be read as one.
        """
        del project
        return _reader(self.stores(data), uri)

    def writer(self, data: Data, project: Path) -> ObjectWriter:
        """Writes `scheme://bucket/key`."""
        del project
        return ObjectWriter(self.stores(data))


def _reader(stores: Stores, uri: str) -> SpineReader:
    if uri.endswith("/") and "/" in uri.partition("://")[2].rstrip("/"):
        return _several(stores, folder_of(uri))
    if not is_pattern(uri.partition("://")[2]):
        return ObjectReader(stores, uri)
    place = place_of(uri)
    # A key may have such signs in it, and is what it says then.
    if place.suffix in SUFFIXES and (found := ObjectReader(stores, uri)).exists():
        return found
    return _several(stores, place)


def _several(stores: Stores, asked: Place) -> SeveralReader:
    root = replace(asked, key=fixed_part(asked.key))
    with stores.opened(root) as asking:
        keys = asking.ask(root, asking.store.keys, root)
        where = f"{asked.scheme}://{asked.bucket}/"
        manifest = replace(root, key=f"{root.key}{MANIFEST}")
        if manifest.key in keys:
            info = asking.ask(manifest, asking.store.info, manifest)
            content = asking.ask(manifest, asking.store.fetch, manifest, info, 0, info.size)
            keys = among(keys, root.key, listed(content, manifest.uri))
    try:
        found = matching(asked.key, keys, suffixes=SUFFIXES)
    except DataError as error:
        raise DataError(error.what, where=where, hint=error.hint) from error
    readers = {key: ObjectReader(stores, f"{where}{key}") for key in found}
    return SeveralReader(members_of(readers, len(root.key)))
