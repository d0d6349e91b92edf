"""What PostgreSQL and its client library say, as our errors: no SQL, no password, a cause, a hint."""

import re

from lodestar.errors import DataError, ExternalError, LodestarError, SchemaError, UsageError

__all__ = [
    "UnknownColumnError",
    "UnknownTableError",
    "connecting_failed",
    "is_passing",
    "server_failed",
    "unreadable_uri",
]

# SQLSTATE classes of trouble that is not the query's: connection, rights, resources, shutdown, …
_OUTSIDE = ("08", "25", "28", "3D", "3F", "40", "53", "54", "55", "57", "58", "XX")
_PASSING = re.compile(r"starting up|shutting down|in recovery|too many|remaining connection slots")
# Complaints of the client library about the URI itself; they quote parts of it.
_OF_THE_URI = re.compile(r'invalid |missing "')
# What the driver puts before the server's or the client library's words.
_PREFIX = re.compile(r"^(?:[A-Z_]+: )?(?:\[libpq\] )?(?:.*(?:\]|failed): )?(?:[A-Z]+: +)?")


class UnknownTableError(DataError):
    """A table that the server does not know."""


class UnknownColumnError(SchemaError):
    """A column that the server does not know."""


def is_passing(said: str) -> bool:
    """Whether connecting again may help: nobody answered, or the server cannot take us just now."""
    if _OF_THE_URI.search(said):
        return False
    return "FATAL" not in said or _PASSING.search(said) is not None


def connecting_failed(said: str) -> LodestarError:
    """What the client library said when there was no connection."""
    if _OF_THE_URI.search(said) and "FATAL" not in said:
        return unreadable_uri()
    reason = said.partition("Failed to connect: ")[2].strip() or "the connection was lost at once"
    return ExternalError(
        f"cannot connect to PostgreSQL: {reason.splitlines()[0]}",
        hint="check that it runs, and the URI's host, port, user, password and database",
    )


def unreadable_uri() -> UsageError:
    """The URI itself is wrong; none of it is shown, as its password may stand in any part then."""
    return UsageError(
        "the URI of PostgreSQL cannot be read",
        hint="write postgresql://user:password@host:port/database, and in the password "
        "%40 for @, %2F for /, %3A for :, %3F for ?, %25 for %",
    )


def server_failed(error: Exception, *, lost: bool, timeout: int | None) -> LodestarError:
    """What ended a statement; `timeout`: the seconds that it was allowed, if they have passed."""
    code = getattr(error, "sqlstate", None) or ""
    reason = _reason(error)
    if timeout is not None and (code == "57014" or not (code or lost)):
        return ExternalError(
            f"PostgreSQL ended the query after {timeout} s: {reason}",
            hint="raise statement_timeout in the config, or let the SQL read fewer rows",
        )
    if lost:
        return ExternalError(
            f"the connection to PostgreSQL was lost: {reason}",
            hint="nothing was kept of what it had sent; see that it runs, then try again",
        )
    if code[:2] in _OUTSIDE or "canceling statement" in reason:
        return _outside(code, reason)
    return _of_the_query(code, reason)


def _outside(code: str, reason: str) -> ExternalError:
    if code == "55P03":
        return ExternalError(
            f"another session holds the table: {reason}",
            hint="nothing was written; run it again when the other one is done",
        )
    return ExternalError(f"PostgreSQL cannot do it: {reason}")


def _of_the_query(code: str, reason: str) -> LodestarError:
    match code:
        case "42P01":
            return UnknownTableError(reason)
        case "42703":
            return UnknownColumnError(reason)
        case "42501":
            return ExternalError(
                f"PostgreSQL refuses: {reason}", hint="grant the right to the URI's user"
            )
        case "42P18" | "42P08":
            return DataError(
                f"PostgreSQL cannot tell a parameter's type: {reason}",
                hint="say it in the SQL: CAST(:name AS timestamp)",
            )
        case _:
            return DataError(f"PostgreSQL refuses: {reason}")


def _reason(error: Exception) -> str:
    """The server's primary message, without the statement; else what the client library says."""
    for name, value in getattr(error, "details", None) or ():
        if _text(name) == "PG_DIAG_MESSAGE_PRIMARY":
            return _text(value)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _PREFIX.sub("", lines[0]) if lines else type(error).__name__


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
