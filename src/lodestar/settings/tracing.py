"""Where traces go: OpenTelemetry's spans of requests and pipeline steps, by OTLP over HTTP."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from lodestar.settings.monitoring import Number
from lodestar.settings.section import Name, Section

__all__ = ["Tracing"]

Share = Annotated[Number, Field(ge=0, le=1)]


class Tracing(Section):
    """Off unless `enabled`. What is left out, OpenTelemetry's own OTEL_… variables say.

    `sample` is the share of traces that begin here and are recorded; one that began elsewhere is
    recorded if it is there.
    """

    enabled: bool = False
    endpoint: Name | None = None
    headers: dict[Name, SecretStr] = Field(default_factory=dict)
    sample: Share | None = None
    service_name: Name | None = None

    @field_validator("endpoint")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and parts.hostname and not parts.username
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                "must be http://host:port or https://host:port; credentials are headers"
            )
        return value
