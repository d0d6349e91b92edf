"""From a command line to a running server: what may be served, which runs are meant, then serve."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from lodestar.artifact.references import parse_reference
from lodestar.artifact.register import OpenedRun
from lodestar.errors import UsageError
from lodestar.interface.progress import Progress
from lodestar.serving.order import ORDER, ServeOrder
from lodestar.serving.references import in_use, resolve
from lodestar.serving.state import ServedRun, SharedState
from lodestar.settings.loading import Environment
from lodestar.settings.serving import Serving

__all__ = ["Asked", "launch"]

WORKER = "lodestar.serving.worker:app"
EVERYBODY = 100.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Asked:
    """The command's options; None takes the config's value. `traffic` is in percent."""

    run: str
    challenger: str | None = None
    shadow: str | None = None
    traffic: float | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    as_of: datetime | None = None


def launch(
    environment: Environment,
    asked: Asked,
    *,
    tell: Progress,
    started: Callable[[str, OpenedRun], None],
) -> int:
    """Serve until told to end; returns the exit code. `started` is called with the address.

    Raises:
        NotAllowedError: others could ask without saying who they are.
        UsageError: no such run, or traffic without a challenger.
        ArtifactError: a run's artifact is rejected.
    """
    _check_traffic(asked)
    settings = _settings(environment.config.serving, asked)
    tell.stage("Looking up the runs")
    names = [name for name in (asked.run, asked.challenger, asked.shadow) if name is not None]
    runs = dict(zip(names, resolve(environment, names), strict=True))
    champion = runs[asked.run]
    for run in runs.values():
        _plan(environment, settings, run, tell)
    tell.stage(f"Verifying and loading {champion.run_name}")
    with _private_folder() as folder, in_use(environment, list(runs.values())):
        SharedState.begin(folder, champion)
        order = ServeOrder(
            project=environment.project,
            environment=environment.name,
            champion=champion,
            state=folder,
            follow=asked.run if parse_reference(asked.run).alias else None,
            challenger=runs[asked.challenger] if asked.challenger else None,
            shadow=runs[asked.shadow] if asked.shadow else None,
            traffic=asked.traffic or 0.0,
            workers=settings.workers,
            as_of=_nanoseconds(asked.as_of),
        )
        return _serve(order, settings, lambda address: started(address, champion))


def _plan(environment: Environment, settings: Serving, run: OpenedRun, tell: Progress) -> None:
    """Where no plan is kept yet, have a child prove one: the workers then need no model library."""
    from lodestar.serving.proving import is_proven
    from lodestar.serving.rehearsal import rehearse

    if settings.native and not is_proven(environment.project, run):
        tell.stage(f"Proving how {run.run_name} is scored (once on this machine)")
        asyncio.run(rehearse(environment, ServedRun.of(run)))


@contextmanager
def _private_folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="lodestar-serve-") as folder:
        yield Path(folder)


def _serve(order: ServeOrder, settings: Serving, started: Callable[[str], None]) -> int:
    from lodestar.serving.server import serve

    return serve(WORKER, settings, environ={ORDER: order.to_json()}, started=started)


def _check_traffic(asked: Asked) -> None:
    if asked.traffic is not None and not 0 < asked.traffic <= EVERYBODY:
        raise UsageError(
            f"--traffic {asked.traffic:g} is no share of the entities", hint="percent: 0 to 100"
        )
    if (asked.traffic is None) != (asked.challenger is None):
        raise UsageError(
            "--challenger-run-id and --traffic go together",
            hint="--challenger-run-id ID --traffic 10 lets it answer a tenth of the entities",
        )


def _nanoseconds(moment: datetime | None) -> int | None:
    """A time in UTC, since 1970."""
    if moment is None:
        return None
    return (moment.replace(tzinfo=UTC) - EPOCH) // MICROSECOND * 1_000


def _settings(section: Serving, asked: Asked) -> Serving:
    """The config's section with what the command says instead, checked like the config."""
    given = {"host": asked.host, "port": asked.port, "workers": asked.workers}
    changed = {name: value for name, value in given.items() if value is not None}
    return section.model_copy(update=changed)
