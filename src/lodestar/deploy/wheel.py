"""Lodestar's own wheel, made of the very code that runs here, whatever it was installed from.

So the image serves with what rendered it, and no index is asked for a package of our name. The same code
makes the same bytes.
"""

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import lodestar

__all__ = ["DISTRIBUTION", "Wheel", "own_wheel"]

DISTRIBUTION = "lodestar-ml"
TAG = "py3-none-any"
# The first moment that a zip file can name.
EPOCH = (1980, 1, 1, 0, 0, 0)
MODE = 0o644 << 16
KEPT = ("METADATA", "entry_points.txt")


@dataclass(frozen=True)
class Wheel:
    """A wheel's file name, bytes, and metadata."""

    name: str
    content: bytes
    metadata: str

    @property
    def requirement(self) -> str:
        """How pip is told to install it, from the folder `wheels`, if it is this one."""
        return f"./wheels/{self.name} --hash=sha256:{hashlib.sha256(self.content).hexdigest()}\n"


def own_wheel() -> Wheel:
    """Make it."""
    found = distribution(DISTRIBUTION)
    stem = f"{DISTRIBUTION.replace('-', '_')}-{found.version}"
    files = {**dict(_package()), **dict(_about(found, f"{stem}.dist-info"))}
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = MODE
            archive.writestr(entry, data)
    return Wheel(f"{stem}-{TAG}.whl", stream.getvalue(), found.read_text("METADATA") or "")


def _package() -> Iterator[tuple[str, bytes]]:
    root = Path(lodestar.__file__).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root.parent).as_posix(), path.read_bytes()


def _about(found: Distribution, folder: str) -> Iterator[tuple[str, bytes]]:
    for name in KEPT:
        if (text := found.read_text(name)) is not None:
            yield f"{folder}/{name}", text.encode()
    words = f"Wheel-Version: 1.0\nGenerator: lodestar\nRoot-Is-Purelib: true\nTag: {TAG}\n"
    yield f"{folder}/WHEEL", words.encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
