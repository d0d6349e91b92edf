"""What BigQuery and its client say, as our errors: no SQL, no secret, a cause, a hint."""

import re
from typing import Any

from lodestar.errors import (
    DataError,
    ExternalError,
    LodestarError,
    NotAllowedError,
    SchemaError,
    first_line,
)

__all__ = [
    "AlreadyThereError",
    "ConflictError",
    "UnknownColumnError",
    "UnknownTableError",
    "call_failed",
    "credentials_failed",
    "export_failed",
    "job_failed",
]

_COLUMN = re.compile(r"Unrecognized name: `?([\w.]+)`?")
_TABLE = re.compile(r"Not found: (?:Table|Dataset) [\w.:-]*?[.:]([\w-]+)(?: |$)")
_LIMIT = re.compile(r"(\d+) or higher required")
_CONFLICT = re.compile(r"Could not serialize|due to concurrent update", re.IGNORECASE)
_OF_THE_BUCKET = re.compile(
    r"gs://|bucket|storage\.objects|writing data|different locations", re.IGNORECASE
)
_TOO_DEAR = "bytesBilledLimitExceeded"
_OUTSIDE = {"rateLimitExceeded", "backendError", "internalError", "quotaExceeded", "badGateway"}
# What the client puts before the words of the server: the request, and the server's code.
_PREFIX = re.compile(r"^(?:\d{3} )?(?:[A-Z]+ \S+: )?")
_SUFFIX = re.compile(r"(?:; reason: .*|\s*Location: \S+|\s*Job ID: \S+)+$", re.DOTALL)


class UnknownTableError(DataError):
    """A table or dataset that BigQuery does not know; `name` is its last part."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"BigQuery refuses: {reason}")
        found = _TABLE.search(reason)
        self.name = found.group(1) if found else ""
        self.is_dataset = "Not found: Dataset" in reason


class UnknownColumnError(SchemaError):
    """A column that BigQuery does not know."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the SQL fails: {reason}")
        found = _COLUMN.search(reason)
        self.name = found.group(1).rpartition(".")[2] if found else ""


class AlreadyThereError(DataError):
    """Something of that name is there."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"BigQuery refuses: {reason}")


class ConflictError(ExternalError):
    """Somebody else changed the table at the same time."""


def credentials_failed(error: Exception) -> ExternalError:
    """Google's library found no credentials, or its servers refuse them."""
    return ExternalError(
        f"no credentials for BigQuery: {_plain(error)}",
        hint="set data.bigquery.credentials_file to a service account's file, or log in with "
        "gcloud auth application-default login",
    )


def call_failed(error: Any, *, project: str) -> LodestarError:  # noqa: ANN401 -- the client's errors
    """What ended a call of the API."""
    reason = _first_reason(error)
    said, status = _plain(error), getattr(error, "code", None)
    if status is None:
        return ExternalError(
            f"the connection to BigQuery was lost: {said}",
            hint="nothing was kept of what it had sent; see that it can be reached, then try again",
        )
    if (
        reason == _TOO_DEAR
    ):  # the client takes a reason that it does not know for the server's fault
        return job_failed(reason, said)
    if reason not in _OUTSIDE and status in {404, 409}:
        return UnknownTableError(said) if status == 404 else AlreadyThereError(said)  # noqa: PLR2004 -- HTTP's
    if reason == "accessDenied" or status == 401:  # noqa: PLR2004 -- HTTP's
        return ExternalError(
            f"BigQuery refuses: {said}",
            hint=f"grant the account the roles BigQuery Job User in {project}, and BigQuery Data "
            "Viewer (to write: Editor) of the dataset",
        )
    if reason in _OUTSIDE or int(status) >= 500 or status == 429:  # noqa: PLR2004 -- HTTP's
        return ExternalError(
            f"BigQuery cannot do it just now: {said}",
            hint="it was asked again until data.bigquery.retry_timeout; try later",
        )
    return job_failed(reason, said)


def job_failed(reason: str, said: str) -> LodestarError:
    """What ended a job, or kept it from being one."""
    if reason == _TOO_DEAR:
        needed = _LIMIT.search(said)
        least = f": it takes {int(needed.group(1)):,} bytes" if needed else ""
        return NotAllowedError(
            f"the query would read more than may be billed{least}",
            hint="raise data.bigquery.maximum_bytes_billed, or let the SQL read fewer columns, "
            "partitions or tables",
        )
    if _CONFLICT.search(said):
        return ConflictError(f"another job changes the table: {said}", hint="run it again")
    if reason in _OUTSIDE:
        return ExternalError(f"BigQuery cannot do it just now: {said}", hint="try later")
    known = {"notFound": UnknownTableError, "duplicate": AlreadyThereError}
    if _COLUMN.search(said):
        return UnknownColumnError(said)
    return known[reason](said) if reason in known else DataError(f"BigQuery refuses: {said}")


def export_failed(error: LodestarError, uri: str) -> LodestarError:
    """What ended an export: of the query as it is, of the bucket with what it takes."""
    if not _OF_THE_BUCKET.search(error.what):
        return error
    return ExternalError(
        f"BigQuery cannot export rows to {uri}: {error.what.removeprefix('BigQuery refuses: ')}",
        hint="see data.bigquery.export_root: the bucket must be there, in the location of the datasets "
        "that are read, and the account needs the role Storage Object User of it",
    )


def _first_reason(error: Any) -> str:  # noqa: ANN401 -- as above
    found: Any = next(iter(getattr(error, "errors", None) or ()), None)
    return str(found.get("reason", "")) if isinstance(found, dict) else ""


def _plain(error: Any) -> str:  # noqa: ANN401 -- as above
    """The words on one line, without the request and what follows them."""
    said = getattr(error, "message", None) or first_line(error)
    return " ".join(_SUFFIX.sub("", _PREFIX.sub("", str(said))).split())
