"""Preflight of one recipe: everything short of reading the rows."""

from dataclasses import dataclass

import pyarrow as pa

from lodestar.factory.recipe import Factory
from lodestar.interface.data import SaysCost
from lodestar.pipelines.train import roles_of
from lodestar.settings.loading import Settings

__all__ = ["CheckedRecipe", "check"]


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe that would train, as far as can be told without its rows.

    `bytes_read` is what a warehouse says that the query reads at most, `bytes_joined` that the join of
    the features does; None where that costs nothing.
    """

    recipe: str
    task: str
    class_path: str
    features: int
    columns: int | None
    parameters: tuple[str, ...]
    notes: tuple[str, ...]
    bytes_read: int | None = None
    bytes_joined: int | None = None


def check(settings: Settings) -> CheckedRecipe:
    """Check class paths, names, metric, SQL, files and columns.

    Raises:
        LodestarError: the first kind of thing that is wrong, every case of it.
    """
    factory = Factory(settings.environment, settings.loaded, work="check")
    factory.preflight()
    query = factory.loader.query
    parameters = query.parameters if query else ()
    spine = factory.spine_columns(factory.loader)
    columns, augmenter = spine.reader.schema(), factory.augmenter()
    with augmenter.augment(pa.RecordBatchReader.from_batches(columns, [])) as rows:
        schema = rows.schema
    roles = roles_of(settings.recipe, schema)
    cost = spine.reader.bytes_read() if isinstance(spine.reader, SaysCost) else None
    joins = augmenter.bytes_read(columns)
    costs = [
        f"{what} reads at most {_in_bytes(read)}"
        for what, read in (("each run of the query", cost), ("each join of the features", joins))
        if read is not None
    ]
    return CheckedRecipe(
        recipe=settings.loaded.name,
        task=settings.recipe.data_interface.task_type,
        class_path=settings.recipe.model.class_path,
        features=len(roles.inputs),
        columns=len(schema),
        parameters=parameters,
        notes=(*spine.notes, *costs, *(() if factory.tunes else factory.hyperparameters.notes)),
        bytes_read=cost,
        bytes_joined=joins,
    )


def _in_bytes(count: int) -> str:
    """A number of bytes in the unit that people are billed by."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:  # noqa: PLR2004 -- the unit's
        size /= 1024
        units.pop(0)
    return f"{size:,.0f} {units[0]}" if units[0] == "B" else f"{size:,.1f} {units[0]}"
