"""`lodestar init`: a project that trains at once, with the config of a stack where one is asked for."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestar.cli.edge import guarded
from lodestar.cli.options import Json

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar.samples.stacks import Stack

__all__ = ["add_init_command"]


def add_init_command(app: typer.Typer) -> None:
    """Add it to the command line."""
    app.command()(init)


def init(
    directory: Annotated[
        Path | None, typer.Argument(help="Where to make the project.", show_default=False)
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="Write the config of a stack as well: see --list-stacks.")
    ] = None,
    list_stacks: Annotated[
        bool, typer.Option("--list-stacks", help="Say which stacks there are; make nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a project that trains at once, offline."""
    with guarded(as_json=as_json) as out:
        from lodestar.errors import UsageError
        from lodestar.samples.stacks import STACKS, stack_named

        if list_stacks:
            out.show(_StacksView(list(STACKS.values())))
            return
        if directory is None:
            raise UsageError("where to make the project is missing", hint="lodestar init DIR")
        chosen = None if stack is None else stack_named(stack)
        from lodestar.samples.project import create_project

        out.show(_InitView(directory, create_project(directory, chosen), chosen))


class _StacksView:
    """The stacks that there are."""

    def __init__(self, stacks: "Sequence[Stack]") -> None:
        self._stacks = stacks

    def json(self) -> dict[str, Any]:
        """All of each."""
        return {"stacks": [asdict(stack) for stack in self._stacks]}

    def print(self, console: "Console") -> None:
        """A line each."""
        width = max(len(stack.name) for stack in self._stacks)
        for stack in self._stacks:
            console.print(f"{stack.name:<{width}}  {stack.about}", soft_wrap=True)


class _InitView:
    """A project was made."""

    def __init__(self, directory: Path, files: Sequence[Path], stack: "Stack | None") -> None:
        self._directory = directory
        self._files = files
        self._stack = stack

    def json(self) -> dict[str, Any]:
        """Where, which files, and what they are for."""
        return {
            "directory": str(self._directory),
            "files": [str(file) for file in self._files],
            "stack": None if self._stack is None else asdict(self._stack),
        }

    def print(self, console: "Console") -> None:
        """What to do next."""
        from lodestar.cli.drawing import print_next

        console.print(f"[green]✓[/] {len(self._files)} files in {self._directory}")
        steps = [
            ("lodestar train --recipe-file breast_cancer", "train the first recipe"),
            ("lodestar check", "check all recipes"),
        ]
        print_next(console, (f"cd {self._directory}", ""), *steps, *_steps(self._stack))


def _steps(stack: "Stack | None") -> list[tuple[str, str]]:
    """From the files to a stack that is known to work."""
    if stack is None:
        return []
    env = f"--env {stack.environment}"
    ready = ("lodestar infra up", "start the servers, with the sample shop")
    if stack.template is not None:
        ready = (f"cp {stack.template} prod.env", "fill it in, then: set -a; . ./prod.env; set +a")
    served = [
        (f"lodestar deploy render {target} --run-id ID --image NAME:TAG {env}", "serve a run")
        for target in stack.targets
    ]
    return [
        (stack.install, f"what {stack.name} needs"),
        ready,
        (f"lodestar check --online {env}", "try out every piece of it"),
        (f"lodestar features apply {env}", "make tables and registry as declared"),
        *(served or [(f"lodestar serve-api --run-id ID {env}", "serve a run")]),
    ]
