"""How the feature store's commands show what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lodestar.cli.drawing import (
    add_row,
    fitting_table,
    plain_cells,
    print_facts,
    print_next,
    styled,
    table_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from lodestar.pipelines.features import ListedFeatures, PlannedFeatures
    from lodestar.pipelines.features import MaterializedView as Materialized
    from lodestar.pipelines.parity import Parity
    from lodestar.pipelines.snapshot import TakenSnapshot

__all__ = [
    "AppliedView",
    "ListView",
    "MaterializedView",
    "ParityView",
    "PlanView",
    "SnapshotView",
]

COLOURS = {"+": "green", "~": "yellow", "-": "red", "-/+": "red"}
ACTIONS = {"+": "add", "~": "change", "-": "remove", "-/+": "replace"}


class ListView:
    """The declared namespaces."""

    def __init__(self, listed: ListedFeatures) -> None:
        self._listed = listed.views
        self._left_out = listed.left_out

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "namespaces": [
                {
                    "namespace": item.view.namespace,
                    "entity_keys": list(item.view.keys),
                    "features": {name: one.type for name, one in item.view.features.items()},
                    "owner": item.view.owner,
                    "materialized_until": item.watermark and item.watermark.isoformat(),
                    "unknown": item.unknown,
                }
                for item in self._listed
            ],
            "left_out": dict(self._left_out),
        }

    def print(self, console: Console) -> None:
        """For people."""
        rows = [
            {
                "namespace": item.view.namespace,
                "keys": ", ".join(item.view.keys),
                "features": ", ".join(item.view.features),
                "owner": item.view.owner,
                "online until": item.unknown or _until(item.watermark),
            }
            for item in self._listed
        ]
        if not rows:
            console.print("no features are declared")
        else:
            console.print(fitting_table(console, list(map(plain_cells, rows)), spare=("owner",)))
        if self._left_out:
            print_facts(
                console, *((f"left out: {name}", why) for name, why in self._left_out.items())
            )


def _until(watermark: datetime | None) -> str:
    return f"{watermark:%Y-%m-%d %H:%M:%S}" if watermark else "never"


class PlanView:
    """What applying the declarations would change; shown before it is."""

    def __init__(self, plan: PlannedFeatures) -> None:
        self._plan = plan

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "project": self._plan.project,
            "namespaces": self._plan.namespaces,
            "changes": [
                {
                    "action": ACTIONS[change.sign],
                    "name": change.name,
                    "what": change.what,
                    "breaks": change.breaks,
                }
                for change in self._plan.changes.items
            ],
        }

    def print(self, console: Console) -> None:
        """For people: one line per change, then how many."""
        changes = self._plan.changes.items
        for change in changes:
            mark = styled(change.sign.ljust(4), COLOURS[change.sign])
            console.print(mark + Text(f"{change.name}: {change.what}"), soft_wrap=True)
        counted = [
            f"{count} to {action}"
            for sign, action in ACTIONS.items()
            if (count := sum(change.sign == sign for change in changes))
        ]
        if counted:
            console.print(Text(f"in {self._plan.project}: {', '.join(counted)}", style="dim"))
        anew = sorted({change.name for change in changes if change.sign == "-/+"})
        if anew:
            names = Text(", ".join(anew))
            console.print(names + Text(": online rows are removed; materialise again", style="dim"))


class AppliedView(PlanView):
    """What was changed, or why nothing was."""

    def __init__(self, plan: PlannedFeatures, *, applied: bool, dry_run: bool) -> None:
        super().__init__(plan)
        self._applied = applied
        self._dry_run = dry_run

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {**super().json(), "applied": self._applied, "dry_run": self._dry_run}

    def print(self, console: Console) -> None:
        """For people, who have seen the changes."""
        kept = "the registry is" if self._plan.keeps == "registry" else "the tables are"
        fit = f"{self._plan.namespaces} declarations fit their tables"
        if self._plan.project is None:
            console.print(f"[green]✓[/] {fit}; this environment has no registry or tables to write")
        elif self._applied:
            console.print(f"[green]✓[/] {fit}; {kept} as they say")
            print_next(console, ("lodestar features materialize", "fill the online store"))
        elif self._plan.changes.items:
            console.print(f"[green]✓[/] {fit}; nothing was changed")
        else:
            console.print(f"[green]✓[/] {fit}; {kept} as they say already")


class MaterializedView:
    """The online store was brought up to date."""

    def __init__(self, done: Sequence[Materialized]) -> None:
        self._done = done

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "namespaces": [{**asdict(item), "until": item.until.isoformat()} for item in self._done]
        }

    def print(self, console: Console) -> None:
        """For people."""
        table = table_of("namespace", "entities", "until")
        for item in self._done:
            add_row(
                table, item.namespace, f"{item.entities:,}", f"{item.until:%Y-%m-%d %H:%M:%S} UTC"
            )
        console.print(table)


class SnapshotView:
    """A snapshot was written."""

    def __init__(self, taken: TakenSnapshot) -> None:
        self._taken = taken

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self._taken)

    def print(self, console: Console) -> None:
        """For people."""
        taken = self._taken
        console.print(f"[green]✓[/] {taken.rows:,} of {taken.of:,} rows in {taken.path}")
        if taken.hashed:
            print_facts(console, ("hashed", ", ".join(taken.hashed)))
        name = taken.path.rpartition("/")[2].removesuffix(".parquet")
        print_next(console, (f"lodestar train --recipe-file {name} --env local", "train on it"))


class ParityView:
    """Two paths were compared."""

    def __init__(self, compared: Parity) -> None:
        self._compared = compared

    def json(self) -> dict[str, Any]:
        """Plain values."""
        compared, broken = self._compared, self._compared.broken
        return {
            "run_id": compared.run_id,
            "rows": compared.rows,
            "as_of": compared.as_of.isoformat(),
            "equal": broken is None,
            "first_difference": None if broken is None else asdict(broken),
            "columns": [asdict(column) for column in compared.columns],
        }

    def print(self, console: Console) -> None:
        """For people."""
        compared, broken = self._compared, self._compared.broken
        table = table_of("stage", "columns", "rows that differ", "first difference")
        for stage in dict.fromkeys(column.stage for column in compared.columns):
            columns = [column for column in compared.columns if column.stage == stage]
            wrong = next((column for column in columns if column.differing), None)
            add_row(
                table,
                stage,
                str(len(columns)),
                f"{max((column.differing for column in columns), default=0):,}",
                ""
                if wrong is None
                else f"{wrong.name}, row {wrong.first_row}: batch {wrong.batch}, online {wrong.online}",
            )
        console.print(table)
        said = f"{compared.rows:,} entities as of {compared.as_of:%Y-%m-%d %H:%M:%S} UTC"
        if broken is None:
            console.print(f"[green]✓[/] bit by bit the same: {said}")
        else:
            console.print(f"[red]✗[/] the paths part at {broken.stage}, {broken.name}: {said}")
