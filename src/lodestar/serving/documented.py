"""What OpenAPI says of a route that is sent JSON."""

from collections.abc import Mapping
from typing import Any

__all__ = ["json_body"]


def json_body(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an operation that says which body it must be sent."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
