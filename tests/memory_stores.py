"""An object store in memory, which says what it was asked for and how many requests ran at a time."""

import asyncio
from collections.abc import Mapping

from lodestar.adapters.files.reading_ahead import Span
from lodestar.adapters.objects.errors import StoreError, Trouble
from lodestar.adapters.objects.places import Place
from lodestar.adapters.objects.store import MultipartUpload, ObjectInfo

__all__ = ["InMemory"]

PATIENCE = 10  # seconds


class InMemory:
    """A store of these objects, key → content, to be read."""

    name, bucket, credentials_hint = "memory", "bucket", "none"
    secrets: tuple[str, ...] = ()

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = dict(objects)
        self.asked: list[str] = []  # "info" or "fetch", and of which key
        self.spans: list[Span] = []
        self.cut: dict[int, int] = {}  # start → how often it is cut
        self.now = self.most = self.ended = 0  # fetches on their way
        self.together = 0  # a fetch waits until so many were on their way at a time
        self.pause = 0.0
        self._met = asyncio.Event()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def info(self, place: Place) -> ObjectInfo:
        self.asked.append(f"info {place.key}")
        return ObjectInfo(len(self._objects[place.key]), "1")

    async def fetch(self, place: Place, info: ObjectInfo, start: int, end: int) -> bytes:
        self.asked.append(f"fetch {place.key}")
        self.spans.append((start, end))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.now >= self.together:
                self._met.set()
            async with asyncio.timeout(PATIENCE):
                await self._met.wait()
            await asyncio.sleep(self.pause)
        finally:
            self.now -= 1
        self.ended += 1
        if self.cut.get(start, 0):
            self.cut[start] -= 1
            end -= 1
        return self._objects[place.key][start:end]

    async def names(self, place: Place) -> list[str]:
        return sorted(key for key in self._objects if key.startswith(place.folder))

    async def keys(self, place: Place) -> list[str]:
        return sorted(key for key in self._objects if key.startswith(place.key))

    async def remove(self, place: Place) -> None:
        raise NotImplementedError

    def upload(self, place: Place) -> MultipartUpload:
        raise NotImplementedError

    def understood(self, error: BaseException) -> StoreError:
        return error if isinstance(error, StoreError) else StoreError(Trouble.OTHER, str(error))
