"""Alerts as JSON lines of a file, for whatever collects logs."""

import json
import os
from pathlib import Path

from lodestar.adapters.alerts.wording import plain_notice
from lodestar.interface.alerting import Message, UndeliveredError

__all__ = ["AlertLines"]


class AlertLines:
    """A file that lines are added to, each in one write: other processes may write there too."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def send(self, message: Message, *, seconds: float) -> str:
        """Add a line for each alert."""
        del seconds  # a file takes them at once
        about = {
            "time": message.sent_at.isoformat(timespec="seconds"),
            "project": message.project,
            "environment": message.environment,
        }
        lines = "".join(
            json.dumps({**about, **plain_notice(one)}) + "\n" for one in message.notices
        )
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, lines.encode())
            finally:
                os.close(handle)
        except OSError as error:
            reason = error.strerror or "unknown"
            raise UndeliveredError(f"the file cannot be written: {reason}", again=False) from error
        return ""
