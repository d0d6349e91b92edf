"""Our core without our server: request model, online read, policies and scorer, for a peer to host."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Core"]


class Core:
    """What `lodestar serve-api` answers with, on an event loop of its own."""

    def __init__(self, run_id: str) -> None:
        raise NotImplementedError(run_id, asyncio, Path)

    def answer(self, keys: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """One answer per entity, in order."""
        raise NotImplementedError(keys)
