"""What Snowflake and its client say, as our errors: no SQL, no secret, a cause, a hint."""

import re
from typing import Any

from lodestar.errors import DataError, ExternalError, LodestarError, SchemaError

__all__ = [
    "AlreadyExistsError",
    "UnknownColumnError",
    "UnknownObjectError",
    "driver_failed",
    "login_failed",
]

_ALREADY_EXISTS = 2002
_UNKNOWN_OBJECT = {2003, 2043}
_UNKNOWN_COLUMN = 904
_NO_PLACE = {90105, 90106}
_NO_WAREHOUSE = 606
_NO_CREDITS = 90073
_NO_RIGHT = 3001
_CANCELLED = {604, 630}
_NO_RESULT = {709, 710}
_EXPIRED = {390195, 390318}
_REFUSED = range(390_000, 391_000)
_OF_THE_KEY = 251_007
# What the client puts before the words of the server.
_PREFIX = re.compile(
    r"^(?:Failed to login: |Login error: |SQL compilation error:\s*"
    r"|error line \d+ at position \d+\s*|\d{6} \(\w{5}\): )+"
)
_SUFFIX = re.compile(r"(?:, code: \d+| \[[0-9a-f-]+\])+\.?$")
_NAME = re.compile(r"'([^']*)'")


class UnknownObjectError(DataError):
    """A table, schema or database that Snowflake does not know, or does not show."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the SQL fails: {reason}")
        self.name = _name_in(reason)


class UnknownColumnError(SchemaError):
    """A column that Snowflake does not know."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the SQL fails: {reason}")
        self.name = _name_in(reason)


class AlreadyExistsError(DataError):
    """Something of that name is there."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Snowflake refuses: {reason}")


def login_failed(error: Any) -> LodestarError:  # noqa: ANN401 -- the driver's error, which has no types here
    """What ended a login."""
    reason, number = _reason(error), error.errno
    if number in _EXPIRED:
        return ExternalError(
            f"Snowflake refuses the login: {reason}",
            hint="fetch a new token for data.snowflake.oauth_token",
        )
    if number in _REFUSED:
        return ExternalError(
            f"Snowflake refuses the login: {reason}",
            hint="check account, user, role and the password, key or token of data.snowflake",
        )
    if number == _OF_THE_KEY or "rivate key" in reason:
        return ExternalError(
            "the private key for Snowflake cannot be read",
            hint="it must be PEM text of an RSA key; an encrypted one needs private_key_passphrase",
        )
    return ExternalError(
        f"cannot connect to Snowflake: {reason}",
        hint="check data.snowflake's account or endpoint_url, and the network",
    )


def driver_failed(error: Any, *, timeout: int) -> LodestarError:  # noqa: ANN401 -- as above
    """What ended a statement, which may take `timeout` seconds."""
    reason, number = _reason(error), error.errno
    names = {
        **dict.fromkeys(_UNKNOWN_OBJECT, UnknownObjectError),
        _UNKNOWN_COLUMN: UnknownColumnError,
        _ALREADY_EXISTS: AlreadyExistsError,
    }
    if number in names and (number != _ALREADY_EXISTS or "already exists" in reason):
        return names[number](reason)
    outside = {
        **dict.fromkeys(
            _CANCELLED, f"it may take statement_timeout, {timeout} s, or read fewer rows"
        ),
        **dict.fromkeys(_NO_PLACE, "set data.snowflake's database and schema_name"),
        _NO_WAREHOUSE: "set data.snowflake.warehouse.name, and warehouse.resume if it sleeps",
        _NO_CREDITS: "its resource monitor lets it run no more: raise the quota, wait until it begins "
        "anew, or name another in data.snowflake.warehouse.name",
        **dict.fromkeys(
            _NO_RESULT,
            "a result is there for a day, for the user who ran the query: all nodes must log in as "
            "the same one. --resume runs it anew",
        ),
        _NO_RIGHT: "grant the right to data.snowflake's role, or name another role",
        **dict.fromkeys(_REFUSED, "the session ended; try again"),
    }
    if number in outside:
        return ExternalError(f"Snowflake refuses: {reason}", hint=outside[number])
    if _is_of_the_sql(error):
        return DataError(f"Snowflake refuses: {reason}")
    return ExternalError(
        f"the connection to Snowflake was lost: {reason}",
        hint="nothing was kept of what it had sent; see that it can be reached, then try again",
    )


def _is_of_the_sql(error: Any) -> bool:  # noqa: ANN401 -- as above
    """Whether the server said it of the statement, and not the client of the network."""
    return type(error).__name__ in {"ProgrammingError", "IntegrityError", "DataError"}


def _reason(error: Any) -> str:  # noqa: ANN401 -- as above
    """The server's words on one line, without codes and what the client adds."""
    said = str(error.raw_msg or type(error).__name__)
    return " ".join(_SUFFIX.sub("", _PREFIX.sub("", said)).split())


def _name_in(reason: str) -> str:
    found = _NAME.search(reason)
    return found.group(1) if found else ""
