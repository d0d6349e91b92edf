"""A classifier on the shop's features, trained in LOCAL, served with features from a real Redis."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tests.conftest import Lodestar

__all__ = ["AS_OF", "Voucher", "make_voucher_project", "served_config"]

AS_OF = "2025-03-31T12:00:00"
RECIPE = """\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters: {n_estimators: 30, max_depth: 4}
loader:
  source_uri: recipes/sql/loaders/user_session_spine.sql
augmenter:
  type: feature_store
  features:
    - feature_namespace: user_demographics
      features: [age, country_code]
    - feature_namespace: user_purchase_summary
      features: [ltv, total_purchase_count]
    - feature_namespace: product_details
      features:
        - price
        - {name: category, on_missing: "none"}
        - brand
preprocessor:
  name: simple_scaler
  params: {exclude_cols: [user_id, product_id, session_id, event_timestamp, grp,
    time_on_page_seconds, click_count]}
data_interface:
  task_type: classification
  target_col: outcome
  entity_keys: [user_id, product_id, session_id]
"""


@dataclass(frozen=True)
class Voucher:
    """The project, its run, and entities that have every feature."""

    project: Path
    run_id: str
    keys: list[dict[str, Any]]

    def environment(self, name: str) -> Mapping[str, str]:
        """Chooses one of the project's environments."""
        assert (self.project / "config" / f"{name}.yaml").is_file()
        return {"APP_ENV": name}


def served_config(redis_uri: str, extra: str = "") -> str:
    """Features from files for history and from Redis for serving."""
    return f"""\
environment: {{augmenter: feature_store, serving: allowed}}
feature_store:
  provider: redis
  offline: files
  redis: {{uri: "{redis_uri}", timeout: 0.5}}
{extra}"""


def make_voucher_project(lodestar: Lodestar, sample: Path, target: Path) -> Voucher:
    """Copy the sample project and train the recipe from the shop's snapshot."""
    shutil.copytree(sample, target, ignore=shutil.ignore_patterns("mlruns", "outputs", "logs"))
    (target / "recipes" / "voucher.yaml").write_text(RECIPE)
    snapshots = target / "data" / "snapshots"
    shutil.copyfile(snapshots / "uplift_model_exp3.parquet", snapshots / "voucher.parquet")
    done = lodestar("train", "-r", "voucher", "--json", cwd=target).succeeded()
    sessions = pq.read_table(target / "data" / "sessions.parquet")
    kept = sessions.slice(sessions.num_rows - 300).select(["user_id", "product_id", "session_id"])
    return Voucher(target, str(done.json["run_id"]), kept.to_pylist())
