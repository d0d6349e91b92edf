"""How each command's result looks: a JSON object for programs, a few calm lines for people.

The results' types are only named: showing one command's result must not load the others' pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from lodestar.cli.drawing import (
    add_row,
    difference,
    few_metrics,
    intervals,
    number,
    print_evaluation,
    print_facts,
    print_next,
    print_tuning,
    run_json,
    styled,
    table_of,
    tuning_json,
)
from lodestar.cli.edge import described
from lodestar.cli.escaping import escape_control
from lodestar.cli.verdicts import drift_json, performance_json, print_drift, print_performance

if TYPE_CHECKING:
    from lodestar.artifact.store import StoredRun
    from lodestar.errors import LodestarError, SettingsError
    from lodestar.pipelines.batch_inference import ScoredBatch
    from lodestar.pipelines.check import CheckedRecipe
    from lodestar.pipelines.evaluate import EvaluatedRun
    from lodestar.pipelines.train import TrainedRun
    from lodestar.pipelines.verify import VerifiedRun

__all__ = [
    "BatchView",
    "CheckView",
    "CompareView",
    "EvaluateView",
    "RunView",
    "RunsView",
    "TrainView",
    "VerifyView",
]

SHORT = 12
# Columns of a terminal that a run's line fits into, with its model's class and a second metric.
WIDE = 110


class TrainView:
    """A run was saved; `serves` is whether the environment may serve it."""

    def __init__(self, trained: TrainedRun, *, serves: bool) -> None:
        self._trained = trained
        self._serves = serves

    def json(self) -> dict[str, Any]:
        """At least what DESIGN section 6 lists."""
        saved, result = self._trained.saved, self._trained.result
        return {
            "run_id": saved.run_id,
            "run_name": saved.run_name,
            "metrics": result.evaluation.values(),
            "intervals": intervals(result.evaluation),
            "task_type": result.target.task,
            "model_class_path": self._trained.class_path,
            "hyperparameters": dict(result.hyperparameters),
            "tuning": tuning_json(result.tuning),
            "rows": {"train": len(result.split.train), "test": len(result.split.test)},
            "performance": performance_json(self._trained.performance),
            "leakage": [asdict(finding) for finding in self._trained.insight.findings],
            "notes": [*self._trained.notes, *(result.tuning.notes if result.tuning else ())],
            "artifact_digest": saved.digest,
            "artifact_uri": saved.artifact_uri,
            "report": saved.report,
        }

    def print(self, console: Console) -> None:
        """Metrics on the held-out rows, where the report lies, what to try next."""
        saved, result = self._trained.saved, self._trained.result
        if result.tuning is not None:
            print_tuning(console, result.tuning)
        print_evaluation(console, result.evaluation, "held-out rows")
        print_performance(console, self._trained.performance)
        print_facts(
            console,
            ("run", f"{saved.run_id}  {saved.run_name}"),
            ("artifact", f"{saved.digest[:SHORT]}  {saved.artifact_uri}"),
            ("report", saved.report),
        )
        short = saved.run_id[:8]
        served = ((f"lodestar serve-api --run-id {short}", "ask it over HTTP"),)
        print_next(
            console,
            (f"lodestar batch-inference --run-id {short}", "score a batch"),
            (f"lodestar evaluate --run-id {short}", "judge it on labelled data"),
            (f"lodestar verify --run-id {short}", "check the artifact"),
            *(served if self._serves else ()),
        )


class BatchView:
    """Predictions were written."""

    def __init__(self, scored: ScoredBatch) -> None:
        self._scored = scored

    def json(self) -> dict[str, Any]:
        """Rows and outputs."""
        scored = self._scored
        return {
            "run_id": scored.run_id,
            "artifact_digest": scored.digest,
            "rows": scored.rows,
            "outputs": scored.outputs,
            "unknown_categories": scored.unknown_categories,
            "features_filled": scored.features_filled,
            "drift": drift_json(scored.drift),
            "notes": list(scored.notes),
        }

    def print(self, console: Console) -> None:
        """Rows and where they lie."""
        scored = self._scored
        console.print(f"[green]✓[/] {scored.rows:,} rows scored by run {scored.run_id[:8]}")
        print_facts(console, *scored.outputs.items())
        for column, count in scored.unknown_categories.items():
            words = f"  {count:,} rows have a category of {column} that training had not seen"
            console.print(Text(escape_control(words)))
        for feature, count in scored.features_filled.items():
            words = f"  {count:,} rows lack {feature}: the recipe's on_missing stands in"
            console.print(Text(escape_control(words)))
        if scored.drift is not None:
            print_drift(console, scored.drift)


class EvaluateView:
    """A run was judged."""

    def __init__(self, evaluated: EvaluatedRun) -> None:
        self._evaluated = evaluated

    def json(self) -> dict[str, Any]:
        """Metrics here and at training."""
        evaluated = self._evaluated
        return {
            "run_id": evaluated.run_id,
            "artifact_digest": evaluated.digest,
            "data": evaluated.data,
            "rows": evaluated.evaluation.rows,
            "metrics": evaluated.evaluation.values(),
            "intervals": intervals(evaluated.evaluation),
            "performance": performance_json(evaluated.performance),
            "trained_metrics": {name: item["value"] for name, item in evaluated.trained.items()},
            "notes": list(evaluated.notes),
        }

    def print(self, console: Console) -> None:
        """Metrics beside those of training."""
        evaluated = self._evaluated
        trained = {name: item["value"] for name, item in evaluated.trained.items()}
        print_evaluation(console, evaluated.evaluation, evaluated.data, trained)
        print_performance(console, evaluated.performance)


class VerifyView:
    """An artifact is as it was."""

    def __init__(self, verified: VerifiedRun) -> None:
        self._verified = verified

    def json(self) -> dict[str, Any]:
        """What was checked."""
        return {**asdict(self._verified), "verified": True}

    def print(self, console: Console) -> None:
        """One line a check."""
        run = self._verified
        console.print(f"[green]✓[/] manifest   {run.files} files, digest {run.digest[:SHORT]}")
        if not run.warnings:
            console.print("[green]✓[/] lock       versions as recorded")
        for warning in run.warnings:
            console.print(styled("! ", "yellow") + Text(f"lock       {warning}"), soft_wrap=True)
        console.print(f"[green]✓[/] probe      {run.probe_rows} rows predict what they did")
        for note in run.notes:
            console.print(Text(f"note: {note}", style="dim"), soft_wrap=True)


class CheckView:
    """Recipes would train, or would not, or need extras that are not installed."""

    def __init__(
        self,
        checked: Sequence[CheckedRecipe],
        failed: Mapping[str, LodestarError],
        lacking: Mapping[str, SettingsError],
    ) -> None:
        self._checked = checked
        self._failed = failed
        self._lacking = lacking

    def json(self) -> dict[str, Any]:
        """Each recipe."""
        return {
            "recipes": [asdict(item) for item in self._checked],
            "errors": {name: described(error) for name, error in self._failed.items()},
            "missing_extras": {
                name: list(error.missing_extras) for name, error in self._lacking.items()
            },
        }

    def print(self, console: Console) -> None:
        """One line a recipe."""
        for item in self._checked:
            words = f"{item.recipe}  {item.task}, {item.class_path}, {item.features} features"
            if item.parameters:
                words += f", parameters {', '.join(item.parameters)}"
            console.print(styled("✓ ", "green") + Text(words), soft_wrap=True)
            for note in item.notes:
                console.print(Text(f"    {note}", style="dim"), soft_wrap=True)
        for name, lacks in self._lacking.items():
            words = f"{name}  checked in part, as an extra is not installed"
            console.print(styled("- ", "yellow") + Text(words), soft_wrap=True)
            for hint in dict.fromkeys(problem.hint for problem in lacks.problems):
                console.print(Text(f"    {hint}", style="dim"), soft_wrap=True)
        for name, error in self._failed.items():
            console.print(styled("✗ ", "red") + Text(name))
            console.print(Text(escape_control(str(error))), soft_wrap=True)


class RunsView:
    """The newest runs."""

    def __init__(self, runs: Sequence[StoredRun]) -> None:
        self._runs = runs

    def json(self) -> dict[str, Any]:
        """All of each."""
        return {"runs": [run_json(run) for run in self._runs]}

    def print(self, console: Console) -> None:
        """A table."""
        if not self._runs:
            console.print("no runs yet; try: lodestar train --recipe-file breast_cancer")
            return
        wide = console.width >= WIDE
        table = table_of(
            "run", "recipe", *(["model"] if wide else []), "started (UTC)", "status", "metrics"
        )
        for run in self._runs:
            add_row(
                table,
                run.run_id[:8],
                run.recipe,
                *([run.class_path.rpartition(".")[2]] if wide else []),
                f"{run.started:%Y-%m-%d %H:%M}",
                run.status.lower(),
                few_metrics(run.metrics, most=2 if wide else 1),
            )
        console.print(table)


class RunView:
    """One run."""

    def __init__(self, run: StoredRun) -> None:
        self._run = run

    def json(self) -> dict[str, Any]:
        """All of it."""
        return run_json(self._run)

    def print(self, console: Console) -> None:
        """Facts, metrics, parameters."""
        run = self._run
        print_facts(
            console,
            ("run", f"{run.run_id}  {run.run_name}"),
            ("status", f"{run.status.lower()}, started {run.started:%Y-%m-%d %H:%M} UTC"),
            ("model", f"{run.class_path} ({run.task})"),
            ("artifact", run.digest or "none"),
            ("aliases", ", ".join(run.aliases) or "none"),
            *((name, f"{value:.4f}") for name, value in sorted(run.metrics.items())),
            *sorted(run.params.items()),
        )


class CompareView:
    """Two runs side by side."""

    def __init__(self, first: StoredRun, second: StoredRun) -> None:
        self._first = first
        self._second = second

    def json(self) -> dict[str, Any]:
        """Metric differences (second minus first), and the parameters that differ."""
        first, second = self._first, self._second
        return {
            "runs": [first.run_id, second.run_id],
            "metrics": {
                name: {
                    "first": first.metrics.get(name),
                    "second": second.metrics.get(name),
                    "difference": difference(first.metrics, second.metrics, name),
                }
                for name in sorted(first.metrics.keys() | second.metrics.keys())
            },
            "params": {
                name: [first.params.get(name), second.params.get(name)]
                for name in self._different()
            },
        }

    def print(self, console: Console) -> None:
        """A table of metrics, then one of differing parameters."""
        names = (self._first.run_id[:8], self._second.run_id[:8])
        table = table_of("", *names, "difference")
        for name, item in self.json()["metrics"].items():
            add_row(
                table,
                name,
                number(item["first"]),
                number(item["second"]),
                number(item["difference"]),
            )
        for name in self._different():
            add_row(
                table,
                name,
                self._first.params.get(name, "-"),
                self._second.params.get(name, "-"),
                "",
            )
        console.print(table)

    def _different(self) -> list[str]:
        first, second = self._first.params, self._second.params
        return sorted(
            name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
        )
