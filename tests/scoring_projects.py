"""Projects with something to score in many parts: a recipe that names a file, and one with SQL."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tests.conftest import SMALL, Lodestar, copy_of
from tests.databases import Database

from lodestar.pipelines.batch_inference import ScoredBatch, batch_inference
from lodestar.settings.loading import load_config

FILLED = """
augmenter:
  type: feature_store
  features:
    - feature_namespace: chemistry
      features: [{name: alcohol, on_missing: -1}]
"""

CHEMISTRY = """\
namespace: chemistry
entity_keys: {sample_id: string}
source: {table: chemistry}
features: {alcohol: float}
"""

__all__ = [
    "GROUP",
    "ROWS",
    "SERVED",
    "SIZES",
    "Scoring",
    "copied",
    "scoring_project",
    "with_postgres",
    "with_sections",
]

COPIES, GROUP = 20, 250
SIZES = "batch: {chunk_rows: 64, part_rows: 500}\n"
SERVED = "batch: {chunk_rows: 512, part_rows: 2000}\n"
ROWS = 178 * COPIES  # of the file


@dataclass(frozen=True)
class Scoring:
    """A project of one test's own, with runs of a recipe that names a file and of one with SQL."""

    project: Path
    runs: dict[str, str]

    def score(
        self,
        recipe: str,
        output: str,
        *,
        resume: bool = False,
        env: str = "parts",
        variables: Mapping[str, str] | None = None,
    ) -> ScoredBatch:
        environment = load_config(self.project, env, variables=variables or {})
        place = str(self.project / "outbox" / output) + "/" * output.endswith("/")
        return batch_inference(environment, self.runs[recipe], {}, output=place, resume=resume)

    def written(self, output: str) -> Path:
        return self.project / "outbox" / output

    def data(self, recipe: str) -> Path:
        return self.project / f"data/{recipe}.parquet"

    def spoil(self, recipe: str, row: int) -> None:
        """Take a value away that training always saw."""
        table = pq.read_table(self.data(recipe))
        at = next(i for i, field in enumerate(table.schema) if pa.types.is_floating(field.type))
        values = table.column(at).to_pylist()
        values[row] = None
        column = pa.array(values, table.schema.field(at).type)
        changed = table.set_column(at, table.schema.field(at), column)
        pq.write_table(changed, self.data(recipe), row_group_size=GROUP)

    def kept(self) -> dict[str, int]:
        """The manifests of kept parts, and when each was written."""
        parts = (self.project / ".lodestar/batches").glob("*/part-*.json")
        return {path.name: path.stat().st_mtime_ns for path in parts}


def scoring_project(lodestar: Lodestar, sample: Path, target: Path) -> Scoring:
    """Train in a copy of the sample project, and multiply the rows there."""
    project = lodestar.stocked(copy_of(sample, target))
    wine = (project / "recipes/wine.yaml").read_text(encoding="utf-8")
    (project / "recipes/filled.yaml").write_text(wine + FILLED, encoding="utf-8")
    (project / "features/chemistry.yaml").write_text(CHEMISTRY, encoding="utf-8")
    runs = {}
    for recipe in ("wine", "breast_cancer", "filled"):
        done = lodestar("train", "-r", recipe, *SMALL, "--json", cwd=project).succeeded()
        runs[recipe] = str(done.json["run_id"])
    for recipe in ("wine", "breast_cancer"):
        path = project / f"data/{recipe}.parquet"
        rows = pq.read_table(path)
        many = pa.concat_tables([rows] * COPIES)
        keys = pa.array([f"s{number:06d}" for number in range(len(many))])
        at = many.schema.get_field_index("sample_id")
        pq.write_table(many.set_column(at, "sample_id", keys), path, row_group_size=GROUP)
    (project / "config/parts.yaml").write_text(SIZES, encoding="utf-8")
    return Scoring(project, runs)


def with_postgres(scoring: Scoring, database: Database) -> None:
    """Put the rows of the recipe with SQL into a database too, which the environment `pg` names."""
    rows = pq.read_table(scoring.data("breast_cancer"))
    database.put(rows, "breast_cancer")
    database.run("ANALYZE breast_cancer")
    with_sections(scoring, "pg", {"adapter": "postgres", "postgres": {"uri": database.uri}})


def with_sections(
    scoring: Scoring, env: str, data: Mapping[str, object], others: str = SERVED
) -> None:
    """Lay these sections of `data`, and others, over the config, as an environment."""
    text = f"data: {json.dumps(data)}\n{others}"
    (scoring.project / f"config/{env}.yaml").write_text(text, encoding="utf-8")


def copied(scoring: Scoring, target: Path) -> Scoring:
    """A project of one test's own, with the same runs."""
    shutil.copytree(scoring.project, target, ignore=shutil.ignore_patterns(".lodestar", "outbox"))
    return Scoring(target, scoring.runs)
