"""Which run a reference means, asked of the tracking store; without MLflow where that will do."""

from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from lodestar.artifact import tags
from lodestar.artifact.aliases import AliasLookup
from lodestar.artifact.plain_client import NotPlainError
from lodestar.artifact.references import parse_reference
from lodestar.artifact.tracking import PlainConnection, Tracking, translated
from lodestar.errors import UsageError

if TYPE_CHECKING:
    from mlflow.entities import Run

    from lodestar.artifact.plain_client import PlainRun
    from lodestar.artifact.tracking import Connection

    AnyRun: TypeAlias = Run | PlainRun

__all__ = ["RunLookup"]

MOST_NAMED = 5


class RunLookup:
    """Finds runs of one project's experiment."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    def run(self, reference: str) -> "AnyRun":
        """A run by its id or digest, a unique prefix of these, or an alias.

        Raises:
            UsageError: no such run, or more than one.
            UnreachableError: the server does not answer.
        """
        parse_reference(reference)
        with suppress(NotPlainError):
            if (plain := self._tracking.plain()) is not None:
                return self._found(plain, reference)
        connection = self._tracking.open()
        with translated():
            return self._found(connection, reference)

    def _found(self, connection: "Connection | PlainConnection", reference: str) -> "AnyRun":
        asked = parse_reference(reference)
        client = connection.client
        if asked.alias is not None:
            aliases = AliasLookup(client, self._tracking.experiment_name)
            return client.get_run(aliases.resolve(asked.alias, asked.recipe).run_id)
        found: dict[str, AnyRun] = {}
        for tag in (tags.RUN_ID, tags.DIGEST):
            begins = f"tags.`{tag}` LIKE '{reference}%'"
            runs = client.search_runs([connection.experiment], begins, max_results=MOST_NAMED)
            found |= {run.info.run_id: run for run in runs}
        if len(found) != 1:
            several = f"means several runs: {', '.join(sorted(found))}"
            raise UsageError(
                f"{reference!r} {several if found else 'is no run of this project'}",
                hint="lodestar runs list shows them",
            )
        return next(iter(found.values()))
