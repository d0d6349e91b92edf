"""Preflight of one recipe: everything short of reading the rows."""

from dataclasses import dataclass

import pyarrow as pa

from lodestar.factory.recipe import Factory
from lodestar.pipelines.train import roles_of
from lodestar.settings.loading import Settings

__all__ = ["CheckedRecipe", "check"]


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe that would train, as far as can be told without its rows."""

    recipe: str
    task: str
    class_path: str
    features: int
    columns: int | None
    parameters: tuple[str, ...]
    notes: tuple[str, ...]


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
    return CheckedRecipe(
        recipe=settings.loaded.name,
        task=settings.recipe.data_interface.task_type,
        class_path=settings.recipe.model.class_path,
        features=len(roles.inputs),
        columns=len(schema),
        parameters=parameters,
        notes=(*spine.notes, *(() if factory.tunes else factory.hyperparameters.notes)),
    )
