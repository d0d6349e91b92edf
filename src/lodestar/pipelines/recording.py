"""Turns a training result into the run that is saved: contents, record, report."""

import math
import shlex
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lodestar.artifact.carried import project_modules
from lodestar.artifact.components import save_components
from lodestar.artifact.contents import ArtifactContents, Component
from lodestar.artifact.lock import Lock, imported_packages, lock_of
from lodestar.artifact.packaging import KeptRows, ModelIdentity, package
from lodestar.artifact.probe import PROBE_ROWS
from lodestar.artifact.staging import RunRecord
from lodestar.artifact.store import SavedRun
from lodestar.artifact.tracking import translated
from lodestar.core.drift.sketches import Reference
from lodestar.core.outputs import prediction_columns
from lodestar.core.performance import Comparison
from lodestar.core.preprocessor import TransformerPreprocessor
from lodestar.core.trainer import TrainingResult
from lodestar.core.tuning.result import TuningResult, described
from lodestar.factory.recipe import Factory
from lodestar.pipelines.insight import Insight
from lodestar.pipelines.performance import performance_tags
from lodestar.report.contents import RunReport, SplitSummary
from lodestar.report.page import render
from lodestar.settings.loading import Settings

__all__ = ["Recording"]


class Recording:
    """One run on its way into the store."""

    def __init__(
        self,
        settings: Settings,
        factory: Factory,
        params: Mapping[str, str],
        notes: tuple[str, ...],
        data_digest: str,
        *,
        now: datetime,
    ) -> None:
        self._settings = settings
        self._recipe = settings.recipe
        self._factory = factory
        self._params = params
        self._notes = notes
        self._data_digest = data_digest
        self._now = now

    def save(
        self,
        table: pa.Table,
        result: TrainingResult,
        insight: Insight,
        performance: tuple[Comparison, ...],
        scratch: Path,
    ) -> SavedRun:
        """Write the parts, then let the store package and log them."""
        with translated():
            components = save_components(
                result.model,
                model_class_path=self._recipe.model.class_path,
                folder=scratch / "components",
            )
        modules = project_modules(self._classes(result), self._settings.environment.project)
        contents = self._contents(table, result, components, modules)
        probe_rows = table.select(result.roles.inputs).take(result.split.train[:PROBE_ROWS])
        reference = _reference(
            table,
            result,
            insight,
            sensitive=self._factory.features.sensitive,
            salt=self._data_digest,
        )

        def write_package(folder: Path, identity: ModelIdentity) -> str:
            return package(
                folder,
                identity=identity,
                contents=contents,
                model=result.model,
                components=scratch / "components",
                rows=KeptRows(probe_rows, reference),
                modules=modules,
            )

        def write_report(run_id: str, digest: str) -> str:
            report = self._report(result, insight, contents, run_id, digest)
            return render(replace(report, performance=performance))

        return self._factory.store().save(
            self._record(result, contents, performance), package=write_package, report=write_report
        )

    def _name(self, tuning: TuningResult | None) -> str:
        """`XGBClassifier_breast_cancer_20250713_231043_optuna_best_score_0.945`, in UTC."""
        cls = self._recipe.model.class_path.rpartition(".")[2]
        score = f"_optuna_best_score_{tuning.best_score:.3f}" if tuning else ""
        return f"{cls}_{self._settings.loaded.name}_{self._now:%Y%m%d_%H%M%S}{score}"

    @staticmethod
    def _classes(result: TrainingResult) -> list[type]:
        preprocessor = result.model.preprocessor
        own = [result.model.family.cls]
        if isinstance(preprocessor, TransformerPreprocessor):
            own.append(type(preprocessor.transformer))
        return own

    def _contents(
        self,
        table: pa.Table,
        result: TrainingResult,
        components: tuple[Component, Component],
        modules: Mapping[str, Path],
    ) -> ArtifactContents:
        loader = self._factory.loader
        target = table.schema.field(result.roles.target)
        return ArtifactContents(
            recipe_name=self._settings.loaded.name,
            recipe_yaml_snapshot=self._settings.loaded.text,
            recipe_overrides=self._settings.loaded.overrides,
            loader_sql_snapshot=loader.query.text if loader.query else None,
            loader_uri_snapshot=loader.uri,
            loader_dialect=self._recipe.loader.dialect,
            augmenter_config_snapshot=self._factory.augmenter_snapshot(),
            model_class_path=self._recipe.model.class_path,
            hyperparameters=dict(result.hyperparameters),
            trained_model=components[0],
            trained_preprocessor=components[1],
            roles=result.roles,
            target=result.target,
            spine_schema=result.schema,
            feature_schema=result.schema.select(result.roles.inputs),
            target_schema={"name": target.name, "type": str(target.type)},
            training_methodology=self._methodology(result),
            training_timestamp=self._now.isoformat(timespec="seconds"),
            model_version=f"{self._now:%Y%m%d.%H%M%S}",
            data_fingerprint={
                "sha256": self._data_digest,
                "rows": table.num_rows,
                "columns": table.num_columns,
            },
            metrics={
                name: asdict(estimate) for name, estimate in result.evaluation.metrics.items()
            },
            lock=self._lock(result, modules),
            carried_modules=_places(modules),
            hyperparameter_optimization=described(result.tuning) if result.tuning else None,
        )

    def _methodology(self, result: TrainingResult) -> dict[str, Any]:
        rows = len(result.truth)
        return {
            "train_test_split_method": result.split.method,
            "train_ratio": round(len(result.split.train) / rows, 6),
            "validation_strategy": _validation_strategy(result.tuning),
            "random_state": self._recipe.split.seed,
            "split": self._recipe.split.model_dump(),
            "event_timestamp_col": self._recipe.data_interface.event_timestamp_col,
            "preprocessing_fit_scope": "train_only",
            "train_rows": len(result.split.train),
            "test_rows": len(result.split.test),
        }

    def _lock(self, result: TrainingResult, modules: Mapping[str, Path]) -> Lock:
        tops = {cls.__module__.partition(".")[0] for cls in self._classes(result)}
        own = {name.partition(".")[0] for name in modules}
        return lock_of(sorted((tops | imported_packages(modules.values())) - own - {"lodestar"}))

    def _record(
        self,
        result: TrainingResult,
        contents: ArtifactContents,
        performance: tuple[Comparison, ...],
    ) -> RunRecord:
        params = {f"model.{name}": str(value) for name, value in result.hyperparameters.items()}
        params["data.sha256"] = contents.data_fingerprint["sha256"]
        params["data.rows"] = str(contents.data_fingerprint["rows"])
        metrics = result.evaluation.values()
        if result.tuning:
            params |= {"tuning.metric": result.tuning.metric}
            metrics |= {
                "tuning.best_score": result.tuning.best_score,
                "tuning.trials": float(len(result.tuning.history)),
                "tuning.pruned": float(result.tuning.count("pruned")),
            }
            if not math.isnan(result.tuning.optimism):
                metrics["tuning.optimism"] = result.tuning.optimism
        return RunRecord(
            name=self._name(result.tuning),
            recipe=contents.recipe_name,
            task=result.target.task,
            class_path=contents.model_class_path,
            metrics=metrics,
            params=params,
            tags=performance_tags(performance, stage="train"),
            log_trials=self._settings.environment.config.hyperparameter_tuning.log_trials,
        )

    def _report(
        self,
        result: TrainingResult,
        insight: Insight,
        contents: ArtifactContents,
        run_id: str,
        digest: str,
    ) -> RunReport:
        used = len(result.split.train) + len(result.split.test)
        return RunReport(
            run_name=self._name(result.tuning),
            run_id=run_id,
            created=contents.training_timestamp,
            recipe_name=contents.recipe_name,
            task=result.target.task,
            model_class_path=contents.model_class_path,
            environment=self._settings.environment.name,
            evaluation=result.evaluation,
            importances=insight.importances,
            profile=insight.profile,
            findings=insight.findings,
            split=SplitSummary(
                method=result.split.method,
                seed=self._recipe.split.seed,
                train_rows=len(result.split.train),
                test_rows=len(result.split.test),
                dropped_rows=len(result.truth) - used,
            ),
            hyperparameters=tuple(
                (name, _text(value)) for name, value in result.hyperparameters.items()
            ),
            notes=(*self._notes, *(result.tuning.notes if result.tuning else ())),
            data_fingerprint=contents.data_fingerprint["sha256"],
            recipe_yaml=contents.recipe_yaml_snapshot,
            sql=contents.loader_sql_snapshot,
            reproduce=self._command(searched=result.tuning is not None),
            versions=(
                ("artifact digest", digest),
                ("python", contents.lock.python),
                *sorted(contents.lock.direct.items()),
            ),
            tuning=result.tuning,
        )

    def _command(self, *, searched: bool) -> str:
        """The shell command that trains the same again, also where a config has the search off."""
        words = ["lodestar", "train", "--recipe-file", self._settings.loaded.name]
        if searched:
            words += ["--set", "config.hyperparameter_tuning.enabled=true"]
        for override in self._settings.loaded.overrides:
            words += ["--set", override]
        if self._params:
            words += ["--context-params", ",".join(f"{k}={v}" for k, v in self._params.items())]
        if self._settings.environment.name != "local":
            words += ["--env", self._settings.environment.name]
        return shlex.join(words)


def _validation_strategy(tuning: TuningResult | None) -> str:
    if tuning is None:
        return "none: fixed hyperparameters, the test set is opened once"
    return (
        "each trial its own train/validation split of the training part, seeded by its number; the "
        "best again on common splits; the test set is opened once, after the search"
    )


def _places(modules: Mapping[str, Path]) -> dict[str, str]:
    """Where each module lies below the artifact's code folder."""
    return {
        name: name.replace(".", "/") + ("/__init__.py" if file.name == "__init__.py" else ".py")
        for name, file in modules.items()
    }


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _reference(
    table: pa.Table,
    result: TrainingResult,
    insight: Insight,
    *,
    sensitive: Collection[str],
    salt: str,
) -> Reference:
    """Sketches of all rows' features, and of the predictions of those held out."""
    return Reference.of(
        table.select(result.roles.inputs),
        prediction_columns(result.held_out),
        labels=result.target.task == "classification",
        importances={
            each.feature: each.mean for each in insight.importances if each.kind == "permutation"
        },
        sensitive=sensitive,
        salt=salt,
    )
