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

    `bytes_read` is what a warehouse says that the query reads at most; None where that costs nothing.
    """

    recipe: str
    task: str
    class_path: str
    features: int
    columns: int | None
    parameters: tuple[str, ...]
    notes: tuple[str, ...]
    bytes_read: int | None = None


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
    nothing = pa.RecordBatchReader.from_batches(spine.reader.schema(), [])
    with factory.augmenter().augment(nothing) as rows:
        schema = rows.schema
    roles = roles_of(settings.recipe, schema)
    cost = spine.reader.bytes_read() if isinstance(spine.reader, SaysCost) else None
    costs = () if cost is None else (f"each run of the query reads at most {_in_bytes(cost)}",)
    return CheckedRecipe(
        recipe=settings.loaded.name,
        task=settings.recipe.data_interface.task_type,
        class_path=settings.recipe.model.class_path,
        features=len(roles.inputs),
        columns=len(schema),
        parameters=parameters,
        notes=(*spine.notes, *costs, *(() if factory.tunes else factory.hyperparameters.notes)),
        bytes_read=cost,
    )


def _in_bytes(count: int) -> str:
    """A number of bytes in the unit that people are billed by."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:  # noqa: PLR2004 -- the unit's
        size /= 1024
        units.pop(0)
    return f"{size:,.0f} {units[0]}" if units[0] == "B" else f"{size:,.1f} {units[0]}"
