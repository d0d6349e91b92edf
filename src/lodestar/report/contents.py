"""Everything that a run's report shows, gathered before a line of HTML is written."""

from dataclasses import dataclass

from lodestar.core.performance import Comparison
from lodestar.core.results import DataProfile, Evaluation, Importance, LeakageFinding, Task
from lodestar.core.tuning.result import TuningResult

__all__ = ["RunReport", "SplitSummary"]


@dataclass(frozen=True)
class SplitSummary:
    """How rows were set aside; `dropped_rows` are in neither part (the gap of a time split)."""

    method: str
    seed: int
    train_rows: int
    test_rows: int
    dropped_rows: int = 0


@dataclass(frozen=True)
class RunReport:
    """One training run as its report tells it.

    `created` is ISO text with an offset; `sql` is None where a data URI was loaded; `notes` are
    what the run had to say about itself ("snapshot stands in for loader"); `reproduce` is the
    exact shell command; `versions` are (distribution, version); `tuning` is the search, if there was
    one; `performance` says how the model does beside baseline and champion.
    """

    run_name: str
    run_id: str
    created: str
    recipe_name: str
    task: Task
    model_class_path: str
    environment: str
    evaluation: Evaluation
    importances: tuple[Importance, ...]
    profile: DataProfile
    findings: tuple[LeakageFinding, ...]
    split: SplitSummary
    hyperparameters: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    data_fingerprint: str
    recipe_yaml: str
    sql: str | None
    reproduce: str
    versions: tuple[tuple[str, str], ...]
    tuning: TuningResult | None = None
    performance: tuple[Comparison, ...] = ()
