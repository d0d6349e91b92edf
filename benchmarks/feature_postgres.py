"""Ways to join features to a spine point in time where both lie in PostgreSQL; each is a process.

Ours reads spine and feature tables from the server and joins here. Feast joins in the server, by
`get_historical_features`; its registry was applied before, and the spine is a query embedded in its own
(`entity_select_mode: embed_query`). That is its faster way: of a frame, or of the table that it makes
of a query, the server has no statistics and plans as if it were tiny.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from feature_joins import FEATURES, TABLES
from measure import ROOT

__all__ = ["CHILDREN", "URI", "server"]

URI = "LODESTAR_BENCH_URI"
CHUNK = 65_536


@contextmanager
def server(home: Path) -> Iterator[Callable[[], float]]:
    """A server of our own, found by its children in the environment; what CPU time it has taken."""
    from lodestar.infra.endpoint import Endpoint
    from lodestar.infra.postgres import PostgresServer

    home.mkdir()
    for folder in (home.parent, home):
        folder.chmod(0o755)  # another user runs it where we are root
    made = PostgresServer(home, Endpoint.fresh())
    made.start()
    os.environ[URI] = made.uri.get_secret_value()
    try:
        yield partial(_seconds_of, made.process.pid or 0)
    finally:
        made.stop()


def _seconds_of(number: int) -> float:
    """Of the server's process and its sessions; those that have ended count as its children."""
    import psutil

    process = psutil.Process(number)
    total = 0.0
    for each in (process, *process.children()):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
            if each is process:
                total += times.children_user + times.children_system
    return total


def load(*files: str) -> None:
    """Load parquet files as tables, indexed and analysed as `lodestar infra up` does; apply Feast's."""
    from pydantic import SecretStr

    from lodestar.infra.loading import ShopSize, load_tables
    from lodestar.interface.progress import Silent

    load_tables(SecretStr(os.environ[URI]), [*map(Path, files)], ShopSize(), Silent())
    store = _feast()
    from lodestar.adapters.feast.objects import objects_of
    from lodestar.settings.features import load_features

    objects = objects_of(load_features(ROOT), None)
    store.apply([*objects.entities, *objects.views])


def ours_postgres(spine: str, output: str) -> None:
    """Ours: the spine by its query, the tables of the window, late arrivals left out."""
    from pydantic import SecretStr

    from lodestar.adapters.files.rows import FileWriter
    from lodestar.adapters.joins.point_in_time import PointInTimeJoin
    from lodestar.adapters.postgres.features import PostgresFeatureTables
    from lodestar.adapters.postgres.reader import PostgresReader
    from lodestar.adapters.postgres.session import PostgresConnection
    from lodestar.interface.features import SelectedFeatures
    from lodestar.settings.features import load_features
    from lodestar.sql import parse_query

    connection = PostgresConnection(SecretStr(os.environ[URI]), statement_timeout=600)
    catalog = load_features(ROOT)
    selection = [SelectedFeatures(catalog.view(name), TABLES[name][2]) for name in TABLES]
    query = parse_query(f"SELECT * FROM {Path(spine).stem}", "postgres", where="spine.sql")  # noqa: S608 -- a name of this file's
    rows = PostgresReader(connection, query, {}).read(chunk_rows=CHUNK)
    join = PointInTimeJoin(PostgresFeatureTables(connection))
    with (
        join.historical(rows, selection, timestamp="event_timestamp") as joined,
        FileWriter(Path.cwd()).sink(output, joined.schema) as sink,
    ):
        for batch in joined:
            sink.write(batch)


def feast_leaky(spine: str, output: str) -> None:
    """Feast as it is by default."""
    _historical(spine, output)


def feast_safe(spine: str, output: str) -> None:
    """Feast, asked to leave late arrivals out."""
    _historical(spine, output, filter_by_created_timestamp=True)


def end_sessions() -> None:
    """End what a client that was ended has left at work in the server."""
    import psycopg

    with psycopg.connect(os.environ[URI], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = current_user AND pid <> pg_backend_pid()"
        )


def _historical(spine: str, output: str, **more: bool) -> None:
    import pyarrow.parquet as pq

    views = {name: features for name, (_, _, features) in TABLES.items()}
    wanted = [f"{name}:{feature}" for name, features in views.items() for feature in features]
    assert len(wanted) == len(FEATURES)  # noqa: S101 -- a script checks itself
    query = f"SELECT * FROM {Path(spine).stem}"  # noqa: S608 -- a name of this file's
    job = _feast().get_historical_features(entity_df=query, features=wanted, **more)
    pq.write_table(job.to_arrow(), output)


def _feast() -> Any:  # noqa: ANN401 -- feast.FeatureStore
    from pydantic import SecretStr

    from lodestar.adapters.feast.config import FeastStores, repo_config
    from lodestar.adapters.feast.project import imported_feast

    registry = SecretStr(f"sqlite:///{Path('feast.db').absolute()}")
    uri = SecretStr(os.environ[URI])
    feast = imported_feast()
    config = repo_config(FeastStores("bench", registry, uri, uri))
    config["offline_store"]["entity_select_mode"] = "embed_query"
    return feast.FeatureStore(config=feast.RepoConfig(**config))


CHILDREN: dict[str, Callable[..., None]] = {
    way.__name__: way for way in (load, ours_postgres, feast_leaky, feast_safe, end_sessions)
}
