"""`lodestar infra …`: real servers for DEV on this machine, without Docker and without root."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestar.cli.edge import guarded

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar.infra.stack import ServerStatus
    from lodestar.pipelines.infra import LoadedShop, RaisedInfra

__all__ = ["infra_app"]

infra_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run PostgreSQL, Redis and MLflow for DEV on this machine.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
NOT_READY = 4
PARAMS = '--context-params "start_date=2025-01-01,end_date=2025-04-01"'
MB = 1_000_000


@infra_app.command()
def up(
    sessions: Annotated[
        int | None, typer.Option(min=1, help="Sessions of the shop.  [default: 1,000,000]")
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="Users of the shop.  [default: 100,000]")
    ] = None,
    products: Annotated[
        int | None, typer.Option(min=1, help="Products of the shop.  [default: 10,000]")
    ] = None,
    no_data: Annotated[bool, typer.Option("--no-data", help="Load no shop.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Replace the shop that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start the servers that do not run, and load the shop once."""
    with guarded(as_json=as_json) as out, _terminable():
        from lodestar.pipelines.infra import up as run

        given = {"sessions": sessions, "users": users, "products": products}
        asked = {name: value for name, value in given.items() if value is not None}
        with out.progress() as progress:
            raised = run(_project(), None if no_data else asked, reload=reload, progress=progress)
        out.show(_UpView(raised))


@infra_app.command()
def down(as_json: Json = False) -> None:
    """Stop the servers; their data stay."""
    with guarded(as_json=as_json) as out, _terminable():
        from lodestar.pipelines.infra import down as run

        with out.progress() as progress:
            stopped = run(_project(), progress)
        out.show(_DownView(stopped))


@infra_app.command()
def status(as_json: Json = False) -> None:
    """Show how each server is; exits 4 if one is not ready."""
    with guarded(as_json=as_json) as out:
        from lodestar.pipelines.infra import status as run

        servers = run(_project())
        out.show(_StatusView(servers))
        if any(server.problem for server in servers):
            raise typer.Exit(NOT_READY)


@infra_app.command("env-file")
def env_file(as_json: Json = False) -> None:
    """Write ports and passwords for compose.yaml, and start nothing."""
    with guarded(as_json=as_json) as out:
        from lodestar.pipelines.infra import env_file as run

        out.show(_EnvFileView(run(_project())))


class _UpView:
    """The servers run."""

    def __init__(self, raised: RaisedInfra) -> None:
        self._raised = raised

    def json(self) -> dict[str, Any]:
        """The servers, the env file (not what is in it), and the shop."""
        raised = self._raised
        return {
            **_servers_json(raised.servers),
            "started": list(raised.started),
            "env_file": str(raised.env_file),
            "shop": _shop_json(raised.shop),
        }

    def print(self, console: Console) -> None:
        """The servers, and how to use them."""
        from lodestar.cli.drawing import print_facts, print_next

        raised = self._raised
        started = ", ".join(raised.started)
        console.print(
            f"[green]✓[/] started {started}" if started else "[green]✓[/] already running"
        )
        _print_servers(console, raised.servers)
        facts = [("env file", _short(raised.env_file))]
        if raised.shop is not None:
            facts.append(("shop", _shop_words(raised.shop)))
        print_facts(console, *facts)
        print_next(
            console,
            ("lodestar infra status", "how they are"),
            ("lodestar infra down", "stop them; the data stay"),
            (f"lodestar train -r uplift_model_exp3 --env dev {PARAMS}", "train with them"),
        )


class _DownView:
    """The servers are stopped."""

    def __init__(self, stopped: Sequence[str]) -> None:
        self._stopped = stopped

    def json(self) -> dict[str, Any]:
        """Those that ran."""
        return {"stopped": list(self._stopped)}

    def print(self, console: Console) -> None:
        """Those that ran."""
        names = ", ".join(self._stopped)
        console.print(f"[green]✓[/] stopped {names}" if names else "nothing was running")


class _StatusView:
    """How the servers are."""

    def __init__(self, servers: Sequence[ServerStatus]) -> None:
        self._servers = servers

    def json(self) -> dict[str, Any]:
        """Each server."""
        return _servers_json(self._servers)

    def print(self, console: Console) -> None:
        """Each server."""
        _print_servers(console, self._servers)


class _EnvFileView:
    """Where the env file is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def json(self) -> dict[str, Any]:
        """Its path."""
        return {"env_file": str(self._path)}

    def print(self, console: Console) -> None:
        """Its path, and the command that reads it."""
        from lodestar.cli.drawing import print_facts, print_next

        print_facts(console, ("env file", _short(self._path)))
        command = f"docker compose --env-file {_short(self._path)} up --wait"
        print_next(console, (command, "the servers in containers"))


def _servers_json(servers: Sequence[ServerStatus]) -> dict[str, Any]:
    return {
        "ready": all(server.problem is None for server in servers),
        "servers": [asdict(server) | {"log": str(server.log)} for server in servers],
    }


def _print_servers(console: Console, servers: Sequence[ServerStatus]) -> None:
    from lodestar.cli.drawing import add_row, table_of

    table = table_of("server", "address", "pid", "state", "data")
    for server in servers:
        pid = "–" if server.pid is None else str(server.pid)
        state = "ready" if server.problem is None else server.problem
        if server.problem is None and server.pid is None:
            state = "ready, not started here"
        data = f"{server.data_bytes / MB:,.1f} MB"
        add_row(table, server.name, server.address, pid, state, data)
    console.print(table)


def _shop_json(shop: LoadedShop | None) -> dict[str, Any] | None:
    if shop is None:
        return None
    return {
        **asdict(shop.size),
        "loaded": bool(shop.tables),
        "rows": {table.name: table.rows for table in shop.tables},
        "seconds": round(shop.seconds, 2),
        "peak_memory_mb": round(shop.peak_memory_mb),
    }


def _shop_words(shop: LoadedShop) -> str:
    size = shop.size
    what = f"{size.sessions:,} sessions, {size.users:,} users, {size.products:,} products"
    if not shop.tables:
        return f"{what}: was there already"
    rows = sum(table.rows for table in shop.tables)
    return (
        f"{what}: {rows:,} rows in {len(shop.tables)} tables, made and loaded in "
        f"{shop.seconds:.1f} s, at most {shop.peak_memory_mb:,.0f} MB"
    )


def _short(path: Path) -> str:
    """From here, where that is shorter."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the command as Ctrl-C does: what it began is undone."""
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    except Exception as error:
        # Where C code calls Python back, the interruption ends there, and another error follows.
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _project() -> Path:
    from lodestar.settings.loading import find_project

    return find_project(Path.cwd())
