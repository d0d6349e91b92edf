"""The config's sections for object stores; without one, each library's own credentials chain counts."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from lodestar.settings.section import Name, Section, Whole

__all__ = ["GCS", "S3", "Azure", "S3Encryption", "Transfer"]


class Transfer(Section):
    """How long a store is waited for, in seconds, and how often it is asked.

    `read_timeout` bounds each wait for further bytes, not a whole transfer.
    """

    connect_timeout: Whole = Field(default=5, ge=1, le=60)
    read_timeout: Whole = Field(default=30, ge=1, le=600)
    attempts: Whole = Field(default=4, ge=1, le=10)


class _WithEndpoint(Transfer):
    """A store that can be elsewhere than at its maker's."""

    endpoint_url: Name | None = None
    anonymous: bool = False

    @field_validator("endpoint_url")
    @classmethod
    def _an_address_without_secrets(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be http://host:port or https://host:port")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "must hold no user, password or query: credentials have keys of their own"
            )
        return value.rstrip("/")


class S3Encryption(Section):
    """What the store encrypts new objects with; `kms_key_id` is the key's id or ARN."""

    kind: Literal["AES256", "aws:kms", "aws:kms:dsse"]
    kms_key_id: Name | None = None

    @model_validator(mode="after")
    def _a_key_is_of_kms(self) -> "S3Encryption":
        if self.kms_key_id is not None and self.kind == "AES256":
            raise ValueError("kms_key_id goes with aws:kms or aws:kms:dsse")
        return self


class S3(_WithEndpoint):
    """S3, or a store that speaks its protocol at `endpoint_url`."""

    region: Name | None = None
    profile: Name | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    encryption: S3Encryption | None = None

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> "S3":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token goes with access_key_id and secret_access_key")
        given = [self.anonymous, self.profile is not None, self.access_key_id is not None]
        if sum(given) > 1:
            raise ValueError("one of anonymous, profile and access_key_id")
        return self


class GCS(_WithEndpoint):
    """Google Cloud Storage. `credentials` is the JSON of a service account's key."""

    project: Name | None = None
    credentials: SecretStr | None = None
    kms_key_name: Name | None = None

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> "GCS":
        if self.anonymous and self.credentials is not None:
            raise ValueError("one of anonymous and credentials")
        return self


class Azure(_WithEndpoint):
    """Azure Blob Storage. `endpoint_url` is an account's, `https://<account>.blob.core.windows.net`."""

    account: Name | None = None
    account_key: SecretStr | None = None
    sas_token: SecretStr | None = None
    connection_string: SecretStr | None = None
    encryption_scope: Name | None = None

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> "Azure":
        secrets = (self.account_key, self.sas_token, self.connection_string)
        given = [self.anonymous, *(secret is not None for secret in secrets)]
        if sum(given) > 1:
            raise ValueError("one of anonymous, account_key, sas_token and connection_string")
        if self.connection_string is not None and (self.account or self.endpoint_url):
            raise ValueError(
                "connection_string names the account: leave account and endpoint_url out"
            )
        return self
