"""What the file system or a reader of files says, as our errors."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from lodestar.errors import DataError, ExternalError

__all__ = ["translated"]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Word what the file system or a reader says as our errors."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {reason}") from error
    except OSError as error:
        number = error.errno or _number_in(str(error))
        if number in _NO_SPACE:
            raise ExternalError(
                f"no space left to write {path}; what stood there before is unchanged",
                hint="free some space, or write elsewhere with --output",
            ) from error
        reason = error.strerror or str(error).splitlines()[0]
        if number is None:  # not from the system: a reader found what it cannot decode
            raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {reason}") from error
        raise ExternalError(f"{path}: {reason}") from error


def _number_in(message: str) -> int | None:
    """Pyarrow words the error number into its message."""
    found = re.search(r"\[errno (\d+)\]", message)
    return int(found.group(1)) if found else None
