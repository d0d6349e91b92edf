"""How promotions and uploads look."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lodestar.cli.drawing import (
    add_row,
    print_facts,
    print_next,
    styled,
    table_of,
)
from lodestar.cli.edge import described
from lodestar.cli.escaping import escape_control

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar.artifact.aliases import Holder
    from lodestar.pipelines.promotion import Promotion
    from lodestar.pipelines.uploading import Uploaded

__all__ = ["PromotionView", "UploadView"]


class PromotionView:
    """An alias was moved, or was where it should be."""

    def __init__(self, promotion: Promotion) -> None:
        self._promotion = promotion

    def json(self) -> dict[str, Any]:
        """Who has it and who had it."""
        done = self._promotion
        return {
            "recipe": done.now.recipe,
            "alias": done.now.alias,
            "registered_model": done.now.model,
            "run_id": done.now.run_id,
            "version": done.now.version,
            "previous_run_id": done.before and done.before.run_id,
            "previous_version": done.before and done.before.version,
            "changed": done.changed,
            "differences": list(done.differences),
        }

    def print(self, console: Console) -> None:
        """One line, and how to go on."""
        done = self._promotion
        name = f"{done.now.recipe}@{done.now.alias}"
        words = f"{name} is {'now' if done.changed else 'already'} {_named(done.now)}"
        console.print(styled("✓ ", "green") + Text(escape_control(words)), soft_wrap=True)
        for line in done.differences:
            console.print(Text(f"  {escape_control(line)}", style="yellow"), soft_wrap=True)
        if not done.changed:
            return
        print_facts(console, ("before", _named(done.before) if done.before else "nobody"))
        print_next(
            console,
            (f"lodestar batch-inference --run-id {name}", "score with it"),
            (f"lodestar rollback --alias {done.now.alias} --recipe {done.now.recipe}", "undo"),
        )


def _named(holder: Holder) -> str:
    return f"run {holder.run_id[:8]} (version {holder.version})"


class UploadView:
    """What waited was uploaded."""

    def __init__(self, uploaded: Uploaded) -> None:
        self._uploaded = uploaded

    def json(self) -> dict[str, Any]:
        """The runs, as `train` gives them, and what could not be read."""
        return {
            "runs": [
                {
                    **{key: value for key, value in asdict(run).items() if key != "digest"},
                    "artifact_digest": run.digest,
                }
                for run in self._uploaded.runs
            ],
            "damaged": [described(error) for error in self._uploaded.damaged],
        }

    def print(self, console: Console) -> None:
        """A line each."""
        if not self._uploaded.runs and not self._uploaded.damaged:
            console.print("nothing waits to be uploaded")
            return
        table = table_of("run", "name", "artifact")
        for run in self._uploaded.runs:
            add_row(table, run.run_id[:8], run.run_name, run.digest[:12])
        console.print(table)
        for error in self._uploaded.damaged:
            console.print(styled("✗ ", "red") + Text(escape_control(str(error))))
