"""Where an object lies: `s3://bucket/key` taken apart, without ever repeating what may be a secret."""

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from lodestar.errors import UsageError

__all__ = ["Place", "folder_of", "place_of"]

# What any of the stores takes as a bucket's or container's name, and more.
_BUCKET = re.compile(r"^[A-Za-z0-9$][A-Za-z0-9._-]{1,221}$")
_MOST = 1024  # bytes of a key


@dataclass(frozen=True)
class Place:
    """One object of one store."""

    scheme: str
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """As it was written."""
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def suffix(self) -> str:
        """The suffix of its name, with the dot."""
        return PurePosixPath(self.key).suffix

    @property
    def folder(self) -> str:
        """The part of the key before the name, with its slash."""
        return self.key.rpartition("/")[0] + "/" if "/" in self.key else ""


def place_of(uri: str) -> Place:
    """Take a URI apart; a key is taken as it stands, and nothing in it is decoded.

    Raises:
        UsageError: it names no bucket or no key.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    scheme = scheme.lower()
    if "@" in bucket or ":" in bucket:  # not repeated: it may be a password
        raise UsageError(
            f"a URI of {scheme} holds no user, password, account or port",
            hint=f"write {scheme}://bucket/key; the rest belongs to the data section of the config",
        )
    if _BUCKET.fullmatch(bucket) is None:
        raise UsageError(
            f"{uri}: {bucket!r} is no name of a bucket", hint=f"write {scheme}://bucket/key"
        )
    if not key or key.endswith("/"):
        raise UsageError(
            f"{uri} names no object", hint=f"write {scheme}://bucket/folder/name.parquet"
        )
    if {".", ".."} & set(key.split("/")):  # clients would take them away, and mean another object
        raise UsageError(f"{uri} has a part that is only dots", hint="name the object without them")
    if len(key.encode("utf-8", "replace")) > _MOST or any(ord(sign) < ord(" ") for sign in key):
        raise UsageError(
            f"{scheme}://{bucket}/… is no name of an object",
            hint=f"a name has at most {_MOST} bytes and no control characters",
        )
    return Place(scheme, bucket, key)


def folder_of(uri: str) -> Place:
    """What all keys below `scheme://bucket/folder/` begin with.

    Raises:
        UsageError: it is no folder, or a whole bucket.
    """
    place = place_of(f"{uri}*")
    if not uri.endswith("/") or not place.folder:
        raise UsageError(f"{uri} is no folder", hint=f"write {place.scheme}://bucket/folder/")
    return replace(place, key=place.folder)
