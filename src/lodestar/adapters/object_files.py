"""Objects as open files: ranges of one version to read from, parts of an upload to write to."""

import io
import threading

from typing_extensions import Buffer

from lodestar.adapters.object_errors import StoreError, Trouble
from lodestar.adapters.object_places import Place
from lodestar.adapters.object_store import Asking, MultipartUpload, ObjectInfo

__all__ = ["ObjectRanges", "PartsFile"]

PART = 8 << 20  # bytes; the least that S3 takes is 5 MiB, Google wants a multiple of 256 KiB
PARTS_OF_A_SIZE = 1_000  # of the 10,000 that S3 allows
MOST_AT_ONCE = 32 << 20  # bytes


class ObjectRanges(io.RawIOBase):
    """Reads one version of an object, each read a request of its own."""

    def __init__(self, asking: Asking, place: Place, info: ObjectInfo) -> None:
        super().__init__()
        self._asking = asking
        self._place = place
        self._info = info
        self._at = 0
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

    def read(self, size: int | None = -1, /) -> bytes:
        """All of the bytes asked for, unless the object ends before."""
        with self._lock:
            if self.closed:
                raise ValueError("the object is closed")
            whole = size is None or size < 0
            end = self._info.size if whole else min(self._at + (size or 0), self._info.size)
            pieces = []
            while self._at < end:
                pieces.append(self._piece(min(end, self._at + MOST_AT_ONCE)))
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Buffer, /) -> int:
        """As many bytes as the buffer takes."""
        view = memoryview(buffer).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Wait for a read that is under way; there is none after it."""
        with self._lock:
            super().close()

    def _piece(self, end: int) -> bytes:
        found = self._asking.ask(self._place, self._fetched, self._at, end)
        self._at = end
        return found

    async def _fetched(self, start: int, end: int) -> bytes:
        found = await self._asking.store.fetch(self._place, self._info, start, end)
        if len(found) != end - start:
            raise StoreError(Trouble.CUT, f"{len(found):,} of {end - start:,} bytes came")
        return found


class PartsFile(io.RawIOBase):
    """Collects what is written into parts of an upload, which grow: there is room for terabytes."""

    def __init__(self, asking: Asking, place: Place, upload: MultipartUpload) -> None:
        super().__init__()
        self._asking = asking
        self._place = place
        self._upload = upload
        self._waiting = bytearray()
        self._written = self._number = 0
        self._dropped = False

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """How many bytes were written."""
        return self._written

    def write(self, data: Buffer, /) -> int:
        """Take bytes; sends a part where there are enough."""
        view = memoryview(data).cast("B")
        self._written += len(view)
        if not self._dropped:
            self._waiting += view
            while len(self._waiting) > self._size:
                self._send(self._size, last=False)
        return len(view)

    def drop(self) -> None:
        """Let whatever is still written go nowhere."""
        self._dropped = True
        self._waiting.clear()

    def finish(self) -> None:
        """Send the rest as the last part."""
        self._send(len(self._waiting), last=True)

    @property
    def _size(self) -> int:
        return PART << (self._number // PARTS_OF_A_SIZE)

    def _send(self, size: int, *, last: bool) -> None:
        part = bytes(memoryview(self._waiting)[:size])
        del self._waiting[:size]
        self._asking.ask(self._place, self._upload.add, self._number, part, last=last)
        self._number += 1
