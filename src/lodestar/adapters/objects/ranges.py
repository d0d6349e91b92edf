"""An object as an open file: ranges of one version, what is read next fetched ahead, side by side."""

import asyncio
import io
import threading
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future

from typing_extensions import Buffer

from lodestar.adapters.files.reading_ahead import Span
from lodestar.adapters.objects.errors import StoreError, Trouble
from lodestar.adapters.objects.places import Place
from lodestar.adapters.objects.store import Asking, ObjectInfo

__all__ = ["ObjectRanges"]

MOST_AT_ONCE = 32 << 20  # bytes of a request
REQUESTS_AT_ONCE = 4


class ObjectRanges(io.RawIOBase):
    """Reads one version of an object; what nobody expected is a request of its own."""

    def __init__(self, asking: Asking, place: Place, info: ObjectInfo) -> None:
        super().__init__()
        self._asking = asking
        self._place = place
        self._info = info
        self._at = 0
        self._expected: list[_Expected] = []
        self._free = asyncio.Semaphore(REQUESTS_AT_ONCE)
        # Arrow reads ahead in threads of its own; what is closed must not be asked again.
        self._lock = threading.Lock()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there; nothing is asked."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def expect(self, tracks: Sequence[Sequence[Span]], *, ahead: int) -> None:
        """Fetch what is read next; see `reading_ahead.Ahead`."""
        with self._lock:
            before = {one.span: one.let_go() for one in self._expected}
            self._expected = []
            for spans in tracks:
                track: list[_Expected] = []
                for span in spans:
                    track.append(_Expected(span, track, ahead, before.pop(span, None)))
                self._expected += track
                self._begin(track[:ahead])
            self._expected.sort(key=_start)
            for begun in before.values():
                if begun is not None:
                    begun.cancel()

    def read_buffer(self, size: int | None = -1, /) -> Buffer:
        """All of the bytes asked for, unless the object ends before; Arrow copies nothing of it."""
        with self._lock:
            if self.closed:
                raise ValueError("the object is closed")
            whole = size is None or size < 0
            end = self._info.size if whole else min(self._at + (size or 0), self._info.size)
            pieces: list[Buffer] = []
            while self._at < end:
                pieces.append(self._piece(end))
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read(self, size: int | None = -1, /) -> bytes:
        """The same as bytes."""
        return bytes(self.read_buffer(size))

    def readinto(self, buffer: Buffer, /) -> int:
        """As many bytes as the buffer takes."""
        view = memoryview(buffer).cast("B")
        found = memoryview(self.read_buffer(len(view)))
        view[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Wait for a read that is under way; there is none after it, and nothing more is fetched."""
        with self._lock:
            begun = [one for one in self._expected if one.begun is not None]
            self._expected = []
            if begun:
                self._asking.leave()
            super().close()

    def _piece(self, end: int) -> Buffer:
        """What comes next, from one request."""
        at = bisect_right(self._expected, self._at, key=_start)
        if at and self._at < self._expected[at - 1].span[1]:
            return self._awaited(at - 1, end)
        if at < len(self._expected):
            end = min(end, self._expected[at].span[0])
        end = min(end, self._at + MOST_AT_ONCE)
        found = self._asking.ask(self._place, self._fetched, self._at, end)
        self._at = end
        return found

    def _awaited(self, at: int, end: int) -> Buffer:
        """A part of something expected, which is let go of once all of it was read."""
        one = self._expected[at]
        self._begin(one.track[one.place : one.place + 1 + one.ahead])
        assert one.begun is not None  # noqa: S101 -- the line above
        content = self._asking.awaited(self._place, one.begun)
        start, end = self._at - one.span[0], min(end, one.span[1]) - one.span[0]
        one.left -= end - start
        if not one.left:
            del self._expected[at]
            one.let_go()
        self._at += end - start
        return content if end - start == len(content) else memoryview(content)[start:end]

    def _begin(self, expected: Sequence["_Expected"]) -> None:
        for one in expected:
            if one.begun is None and one.left:
                one.begun = self._asking.begin(self._fetched, *one.span)

    async def _fetched(self, start: int, end: int) -> bytes:
        async with self._free:
            found = await self._asking.store.fetch(self._place, self._info, start, end)
        if len(found) != end - start:
            raise StoreError(Trouble.CUT, f"{len(found):,} of {end - start:,} bytes came")
        return found


class _Expected:
    """Bytes that will be read: how many have not been yet, and the request for them once it is made."""

    __slots__ = ("ahead", "begun", "left", "place", "span", "track")

    def __init__(
        self, span: Span, track: list["_Expected"], ahead: int, begun: "Future[bytes] | None"
    ) -> None:
        self.span = span
        self.track = track
        self.place = len(track)
        self.ahead = ahead
        self.begun = begun
        self.left = span[1] - span[0]

    def let_go(self) -> "Future[bytes] | None":
        """The request, whose answer is held from here no longer: a track and its own hold each other."""
        begun, self.begun = self.begun, None
        return begun


def _start(one: _Expected) -> int:
    return one.span[0]
