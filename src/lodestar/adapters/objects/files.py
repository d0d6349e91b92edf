"""An object as an open file to write to: parts of an upload."""

import io

from typing_extensions import Buffer

from lodestar.adapters.objects.places import Place
from lodestar.adapters.objects.store import Asking, MultipartUpload

__all__ = ["PartsFile"]

PART = 8 << 20  # bytes; the least that S3 takes is 5 MiB, Google wants a multiple of 256 KiB
PARTS_OF_A_SIZE = 1_000  # of the 10,000 that S3 allows


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
