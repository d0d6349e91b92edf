"""The config's sections for data warehouses: who works there, how long, and what it may cost."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from lodestar.settings.section import EnvText, Name, Section, Whole

__all__ = ["BigQuery", "Snowflake", "SnowflakeWarehouse"]


# It stands in SQL, between quotes.
_FOLDER = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(/[\w.-]+)*/?", re.ASCII)


def _of_a_variable(value: object) -> object:
    """A secret that stands in a file is one that is in the repository soon."""
    if value is not None and not isinstance(value, EnvText):
        raise ValueError("must come from an environment variable: write ${NAME}")
    return value


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be http://host:port or https://host:port")
    if "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must hold no user, password, path or query")
    return value.rstrip("/")


def _folder_of_a_bucket(value: str) -> str:
    if _FOLDER.fullmatch(value) is None:
        raise ValueError("must be gs://bucket or gs://bucket/folder, of letters, digits and ._-")
    return value.rstrip("/")


Secret = Annotated[SecretStr, BeforeValidator(_of_a_variable)]
Address = Annotated[Name, AfterValidator(_address)]


class SnowflakeWarehouse(Section):
    """What computes. `resume` wakes it before work; `size` is set first, for everyone who uses it."""

    name: Name
    resume: bool = False
    size: (
        Literal["xsmall", "small", "medium", "large", "xlarge", "xxlarge", "xxxlarge", "x4large"]
        | None
    ) = None


class Snowflake(Section):
    """An account, and who works there, by password, key pair or OAuth token; timeouts in seconds.

    `private_key` is the text of a PEM file, `private_key_file` its path. `login_timeout` bounds a login
    with all its attempts, `network_timeout` one attempt of any request, of which there are at most
    `attempts`. Queries are tagged with `application_name` and what they are for. Rows that ask for their
    features wait in temporary tables of `staging_schema`, by default `schema_name`.
    """

    account: Name
    user: Name
    database: Name
    schema_name: Name = "PUBLIC"
    staging_schema: Name | None = None
    role: Name | None = None
    warehouse: SnowflakeWarehouse | None = None
    password: Secret | None = None
    private_key: Secret | None = None
    private_key_file: Name | None = None
    private_key_passphrase: Secret | None = None
    oauth_token: Secret | None = None
    statement_timeout: Whole = Field(default=300, ge=1)
    login_timeout: Whole = Field(default=30, ge=1, le=600)
    network_timeout: Whole = Field(default=60, ge=1, le=3600)
    attempts: Whole = Field(default=6, ge=1, le=20)
    endpoint_url: Address | None = None
    application_name: Name = "lodestar"

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> "Snowflake":
        ways = ("password", "private_key", "private_key_file", "oauth_token")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs one of {', '.join(ways[:-1])} and {ways[-1]}")
        if self.private_key_passphrase is not None and not given[0].startswith("private_key"):
            raise ValueError("private_key_passphrase goes with private_key or private_key_file")
        return self


class BigQuery(Section):
    """A project whose account pays for queries; timeouts in seconds.

    Credentials are Google's default chain's, or those of a service account's `credentials_file`.
    `dataset` is what names of tables without one mean. Rows that ask for their features wait in
    tables of `staging_dataset`, by default `dataset`. Rows that workers read in parts are exported to
    folders below `export_root`, `gs://bucket/folder`. `maximum_bytes_billed` is the most that one query
    may read. `retry_timeout` bounds a request with all its attempts, `job_timeout` a query or a load,
    `read_timeout` the reading of all its rows. `storage_api` reads them by the Storage API, which is
    faster, and needs the right `bigquery.readsessions.create`. `endpoint_url` and
    `storage_endpoint_url` are where the REST API and that one are, if not at Google's.
    """

    project: Name
    dataset: Name | None = None
    staging_dataset: Name | None = None
    export_root: Annotated[Name, AfterValidator(_folder_of_a_bucket)] | None = None
    location: Name | None = None
    credentials_file: Name | None = None
    maximum_bytes_billed: Whole | None = Field(default=None, ge=1)
    job_timeout: Whole = Field(default=600, ge=1)
    request_timeout: Whole = Field(default=60, ge=1, le=3600)
    retry_timeout: Whole = Field(default=120, ge=1, le=3600)
    read_timeout: Whole = Field(default=3600, ge=1)
    storage_api: bool = True
    endpoint_url: Address | None = None
    storage_endpoint_url: Address | None = None
    application_name: Name = "lodestar"

    @model_validator(mode="after")
    def _one_endpoint_is_not_the_other(self) -> "BigQuery":
        if self.endpoint_url and self.storage_api and self.storage_endpoint_url is None:
            raise ValueError(
                "endpoint_url is the REST API's: set storage_endpoint_url too, or storage_api: false"
            )
        return self
