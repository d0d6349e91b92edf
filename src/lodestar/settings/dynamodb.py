"""DynamoDB as the online store: where it is, whose credentials, and how its tables are made."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from lodestar.settings.section import Name, Section, Whole

__all__ = ["DynamoDBStore", "DynamoDBTables"]

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{0,100}")
_FEATURE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _prefix(value: str) -> str:
    if _PREFIX.fullmatch(value) is None:
        raise ValueError("a prefix is at most 100 letters, digits, _, . and -")
    return value


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        fits = parts.scheme in {"http", "https"} and parts.hostname and not parts.username
        fits = bool(fits) and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        # It is not repeated: somebody may have put a password in.
        raise ValueError("an endpoint is http(s)://host:port, without user and password")
    return value


def _attribute(value: str) -> str:
    if _FEATURE.fullmatch(value) is not None or value in {"@entity", "@event", "@created"}:
        raise ValueError("a feature could be called so: begin it with @, such as '@expires'")
    return value


class DynamoDBTables(Section):
    """How tables are made where they do not exist yet; one that exists keeps what it has.

    `create: false` leaves making them to others. `backups` is point-in-time recovery over the last
    `backup_days`. Without `kms_key` AWS encrypts with a key of its own. `expires` is an attribute that
    holds when a version's ttl ends, by which DynamoDB then deletes it.
    """

    create: bool = True
    billing: Literal["on_demand", "provisioned"] = "on_demand"
    read_units: Whole | None = Field(default=None, ge=1)
    write_units: Whole | None = Field(default=None, ge=1)
    backups: bool = True
    backup_days: Whole = Field(default=35, ge=1, le=35)
    kms_key: Name | None = None
    deletion_protection: bool = False
    expires: Annotated[Name, AfterValidator(_attribute)] | None = None
    tags: dict[Name, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _units_where_they_are_paid(self) -> "DynamoDBTables":
        given = [self.read_units, self.write_units]
        if self.billing == "provisioned" and None in given:
            raise ValueError("billing is provisioned, so read_units and write_units are needed")
        if self.billing == "on_demand" and given != [None, None]:
            raise ValueError("read_units and write_units belong to billing: provisioned")
        return self


class DynamoDBStore(Section):
    """Without `region` and keys those of AWS's own chain: environment, profile, role of the machine.

    `timeout` (seconds) bounds reads, retries included; `write_timeout` how long one write is tried
    again while DynamoDB throttles. `writes: conditional` compares and sets each item in one step;
    `batch` compares first and then writes 25 at a time, for one writer at a time. A namespace's table is
    called `table_prefix` and its name.
    """

    region: Name | None = None
    endpoint_url: Annotated[Name, AfterValidator(_endpoint)] | None = None
    profile: Name | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    table_prefix: Annotated[str, AfterValidator(_prefix)] = "lodestar."
    timeout: float = Field(default=1.0, gt=0, le=60)
    write_timeout: float = Field(default=30.0, gt=0, le=600)
    consistent_reads: bool = False
    writes: Literal["conditional", "batch"] = "conditional"
    tables: DynamoDBTables = DynamoDBTables()

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "DynamoDBStore":
        keys = (self.access_key_id, self.secret_access_key)
        if (keys[0] is None) != (keys[1] is None):
            raise ValueError("access_key_id and secret_access_key are given together, or neither")
        if self.session_token is not None and keys[0] is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        if self.profile is not None and keys[0] is not None:
            raise ValueError("the profile says the keys: leave one of the two out")
        return self
