"""`lodestar infra`: servers for DEV on this machine, with the generated shop in the database."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import SecretStr

from lodestar.errors import UsageError
from lodestar.infra.loading import (
    LoadedTable,
    ShopSize,
    load_tables,
    loaded_shop,
    peak_memory_mb,
)
from lodestar.infra.stack import Infra, ServerStatus
from lodestar.interface.progress import Progress
from lodestar.samples.shop import write_shop

__all__ = ["LoadedShop", "RaisedInfra", "down", "ensure_shop", "env_file", "status", "up"]


@dataclass(frozen=True)
class LoadedShop:
    """The shop in the database; `tables` is empty when it was there already."""

    size: ShopSize
    tables: Sequence[LoadedTable]
    seconds: float
    peak_memory_mb: float


@dataclass(frozen=True)
class RaisedInfra:
    """All servers ready; `started` names those that were not before."""

    servers: Sequence[ServerStatus]
    started: Sequence[str]
    env_file: Path
    shop: LoadedShop | None


def up(
    project: Path, shop: Mapping[str, int] | None, *, reload: bool, progress: Progress
) -> RaisedInfra:
    """Start the servers that are missing and load the shop once; a failure stops what this started.

    `shop` has the sizes that were asked for (see `ShopSize`); none leaves the database as it is.
    """
    infra = Infra(project)
    with infra.up(progress) as running:
        uri = running.postgres_uri
        loaded = None if shop is None else ensure_shop(uri, shop, progress, reload=reload)
    return RaisedInfra(infra.status(), running.started, running.env_file, loaded)


def down(project: Path, progress: Progress) -> tuple[str, ...]:
    """Stop the servers; name those that ran. Their data stay."""
    return Infra(project).down(progress)


def status(project: Path) -> tuple[ServerStatus, ...]:
    """How each server is."""
    return Infra(project).status()


def env_file(project: Path) -> Path:
    """The file with addresses and passwords, written if it is not there."""
    return Infra(project).write_env_file()


def ensure_shop(
    uri: SecretStr, asked: Mapping[str, int], progress: Progress, *, reload: bool
) -> LoadedShop:
    """Load the shop, unless there is one.

    Raises:
        UsageError: there is one of other sizes than asked for, and it is not to be replaced.
    """
    there = loaded_shop(uri)
    if there is not None and not reload:
        if (wanted := replace(there, **asked)) != there:
            raise UsageError(
                f"PostgreSQL already has a shop, of {_worded(there)}; asked for: {_worded(wanted)}",
                hint="add --reload to replace it, or ask for those sizes",
            )
        return LoadedShop(there, (), 0.0, 0.0)
    return _make_and_load(uri, replace(ShopSize(), **asked), progress)


def _make_and_load(uri: SecretStr, wanted: ShopSize, progress: Progress) -> LoadedShop:
    began = time.monotonic()
    with TemporaryDirectory(prefix="lodestar-shop-") as folder:
        progress.stage("make the shop")
        files = write_shop(
            Path(folder),
            sessions=wanted.sessions,
            users=wanted.users,
            products=wanted.products,
            seed=wanted.seed,
        )
        tables = [file for file in files if file.parent == Path(folder)]
        loaded = load_tables(uri, tables, wanted, progress)
    return LoadedShop(wanted, loaded, time.monotonic() - began, peak_memory_mb())


def _worded(size: ShopSize) -> str:
    return (
        f"{size.sessions:,} sessions, {size.users:,} users, {size.products:,} products, "
        f"seed {size.seed}"
    )
