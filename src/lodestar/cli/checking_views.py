"""How the pieces of `check --online` look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from lodestar.cli.drawing import styled
from lodestar.cli.edge import described
from lodestar.cli.escaping import escape_control

if TYPE_CHECKING:
    from lodestar.pipelines.check_online import CheckedOnline, CheckedPiece

__all__ = ["OnlineView"]

_MARKS = {
    "fine": ("✓", "green"),
    "failed": ("✗", "red"),
    "not in this config": ("-", "dim"),
    "cannot be checked": ("?", "yellow"),
}


class OnlineView:
    """Each piece works, or does not, or is none of this environment."""

    def __init__(self, checked: CheckedOnline) -> None:
        self._checked = checked

    def json(self) -> dict[str, Any]:
        """All of each."""
        return {
            "environment": self._checked.environment,
            "exit_code": 1 if self._checked.bug else self._checked.exit_code,
            "pieces": [
                {
                    "name": piece.name,
                    "where": piece.where,
                    "state": piece.state,
                    "said": piece.said,
                    "seconds": round(piece.seconds, 3),
                    "error": None if piece.error is None else described(piece.error),
                }
                for piece in self._checked.pieces
            ],
        }

    def print(self, console: Console) -> None:
        """A line per piece; below one that failed what would be right, once where several say it."""
        width = max(len(piece.name) for piece in self._checked.pieces)
        before = ""
        for piece in self._checked.pieces:
            before = self._print(console, piece, width, before)
        failed = sum(piece.state == "failed" for piece in self._checked.pieces)
        if failed:
            words = f"{failed} of {len(self._checked.pieces)} pieces failed"
            console.print(f"[red]{words}[/] in {self._checked.environment}")

    @staticmethod
    def _print(console: Console, piece: CheckedPiece, width: int, before: str) -> str:
        mark, style = _MARKS[piece.state]
        words = piece.said
        if piece.state not in {"fine", "failed"}:
            words = f"{piece.state}: {words}"
        error = "" if piece.error is None else str(piece.error)
        if error:
            words = "as above" if error == before else f"see {piece.where}"
        line = styled(f"{mark} ", style) + Text(f"{piece.name:<{width}}  ")
        console.print(line + Text(escape_control(words), style="dim"), soft_wrap=True)
        if error and error != before:
            indented = escape_control(error).replace("\n", "\n    ")
            console.print(Text(f"    {indented}"), soft_wrap=True)
        return error or before
