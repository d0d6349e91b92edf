"""How what was rendered looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from lodestar.cli.drawing import print_facts, print_next, styled
from lodestar.cli.escaping import escape_control

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar.deploy.folder import Written
    from lodestar.pipelines.deploy import Rendered

__all__ = ["MonitoringView", "RenderedView"]


class RenderedView:
    """Files were written."""

    def __init__(self, rendered: Rendered) -> None:
        self._rendered = rendered

    def json(self) -> dict[str, Any]:
        """The run, the files and the commands."""
        done = self._rendered
        service = done.service
        return {
            "target": done.target,
            "run_id": service.run_id,
            "run_name": service.run_name,
            "artifact_digest": service.digest,
            "name": service.name,
            "image": service.image,
            "environment": service.environment,
            "secrets": list(service.secrets),
            "folder": str(done.written.folder),
            "files": list(done.written.files),
            "changed": done.written.changed,
            "commands": list(done.commands),
        }

    def print(self, console: Console) -> None:
        """What the target gets, what the image gets, and how to go on."""
        done = self._rendered
        service = done.service
        _print_written(console, done.target, done.written)
        own = [name for name in done.written.files if "/" not in name]
        print_facts(
            console,
            ("run", escape_control(f"{service.run_id}  {service.run_name}")),
            ("folder", escape_control(str(done.written.folder))),
            ("files", ", ".join([*own, "image/Dockerfile", "…"])),
            ("secrets", ", ".join(service.secrets) or "none"),
        )
        build, push, apply = done.commands
        print_next(
            console,
            (build, "build the image"),
            (push, "push it"),
            (apply, "bring it up, once its secrets are there"),
        )


class MonitoringView:
    """Files that watch a served model were written."""

    def __init__(self, written: Written) -> None:
        self._written = written

    def json(self) -> dict[str, Any]:
        """The files."""
        return {
            "folder": str(self._written.folder),
            "files": list(self._written.files),
            "changed": self._written.changed,
        }

    def print(self, console: Console) -> None:
        """Where they are, and how to go on."""
        written = self._written
        _print_written(console, "monitoring", written)
        print_facts(
            console,
            ("folder", escape_control(str(written.folder))),
            ("files", ", ".join(written.files)),
        )
        print_next(
            console,
            ("promtool check config prometheus.yaml", "after you have put in your targets"),
            ("Grafana: Dashboards, New, Import", "dashboard.json"),
        )


def _print_written(console: Console, what: str, written: Written) -> None:
    words = f"{what}: {len(written.files)} files, {written.changed} of them new or changed"
    console.print(styled("✓ ", "green") + Text(escape_control(words)), soft_wrap=True)
