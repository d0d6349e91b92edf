"""The run report in a real browser, from disk: figures are drawn and nothing fails."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.browsers import Chromium
from tests.unit.test_report_monitoring import labelled

from lodestar.core.results import (
    CausalCurves,
    ClassificationCurves,
    Curve,
    Curves,
    DataProfile,
    Evaluation,
    Importance,
    MetricEstimate,
    RegressionCurves,
    UpliftDecile,
)
from lodestar.core.tuning.result import Finalist, TrialRecord, TuningResult
from lodestar.report import RunReport, SplitSummary, render
from lodestar.report.monitoring import render_monitoring

HOSTILE = "</script><script>document.documentElement.dataset.owned = 1</script>"


def curves(task: str) -> Curves:
    x = np.linspace(0, 1, 100)
    rise = Curve(HOSTILE, x, np.sqrt(x))
    if task == "classification":
        counts = np.array([[90, 10], [20, 80]])
        return ClassificationCurves(("no", HOSTILE), counts, (rise,), (rise,), (rise,))
    if task == "many classes":
        names = tuple(f"class {place}" for place in range(15))
        return ClassificationCurves(names, np.eye(15, dtype=np.int64), (rise,) * 15)
    if task == "regression":
        return RegressionCurves(x * 9, x * 9 + np.sin(40 * x))
    deciles = tuple(UpliftDecile(n, 9, 0.1 / n, 0.1 / n, 0.0, 0.2 / n) for n in range(1, 11))
    return CausalCurves(rise, Curve("random", x, x), deciles)


def report(drawn: Curves) -> RunReport:
    metrics = {"metric": MetricEstimate(0.8, 0.7, 0.9)}
    return RunReport(
        run_name=HOSTILE,
        run_id="8f3c2a9be1d0",
        created="2025-07-13T23:10:43+09:00",
        recipe_name=HOSTILE,
        task="regression",
        model_class_path="sklearn.linear_model.Ridge",
        environment="LOCAL",
        evaluation=Evaluation("regression", 200, metrics, drawn),
        importances=(Importance(HOSTILE, 0.1, 0.01, "permutation"),),
        profile=DataProfile(0, ()),
        findings=(),
        split=SplitSummary("random", 42, 800, 200),
        hyperparameters=(),
        notes=(),
        data_fingerprint="sha256:3f9a",
        recipe_yaml=HOSTILE,
        sql=None,
        reproduce="lodestar train --recipe-file ridge",
        versions=(),
    )


def search() -> TuningResult:
    def params(place: int) -> dict[str, object]:
        return {HOSTILE: 0.001 * (place + 1), "kind": [HOSTILE, None][place % 2]}

    def curve(place: int) -> tuple[tuple[int, float], ...]:
        return tuple((step, 0.8 + place / 100 + step / 1000) for step in range(10, 101, 10))

    trials = tuple(
        TrialRecord(n, "pruned" if n % 3 else "complete", 0.9 + n / 100, params(n), curve(n), 1.0)
        for n in range(9)
    )
    finalists = tuple(
        Finalist(n, params(n), 0.9 + n / 100, (0.9, 0.91), 0.905, 0.01, dropped=n == 0)
        for n in (6, 3, 0)
    )
    space = {
        HOSTILE: {"type": "float", "low": 0.001, "high": 0.1, "log": True},
        "kind": {"type": "categorical", "choices": [HOSTILE, None]},
    }
    return TuningResult(
        metric="roc_auc",
        direction="maximize",
        best_params=params(6),
        best_score=0.905,
        best_error=0.01,
        optimism=0.055,
        finalists=finalists,
        history=(*trials, TrialRecord(9, "failed", None, params(9), (), 0.1)),
        search_space=space,
        seconds=9.0,
        asked=10,
        notes=(HOSTILE,),
    )


@pytest.mark.parametrize(
    ("task", "figures"),
    [("classification", 3), ("many classes", 2), ("regression", 3), ("causal", 2)],
)
def test_a_browser_draws_every_figure_from_disk_without_an_error(
    chromium: Chromium, tmp_path: Path, task: str, figures: int
) -> None:
    opened_without_error(chromium, tmp_path, render(report(curves(task))), figures)


def test_a_browser_draws_the_figures_of_a_search(chromium: Chromium, tmp_path: Path) -> None:
    searched = replace(report(curves("regression")), tuning=search())

    # History, intermediate values, finalists, two slices, parallel coordinates.
    opened_without_error(chromium, tmp_path, render(searched), 3 + 6)


def test_a_browser_shows_what_monitor_found(chromium: Chromium, tmp_path: Path) -> None:
    opened_without_error(
        chromium, tmp_path, render_monitoring(labelled(HOSTILE, wrong_from=3, of=HOSTILE)), 0
    )


def test_a_narrow_window_is_never_scrolled_sideways(chromium: Chromium, tmp_path: Path) -> None:
    searched = replace(report(curves("classification")), tuning=search(), recipe_name="narrow")
    measure = "document.documentElement.dataset.wide = document.documentElement.scrollWidth"
    # The policy would refuse the measuring script as well.
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(searched))
    measuring = f"<script>onload = () => {{ {measure} }}</script></body>"
    page = tmp_path / "report.html"
    page.write_text(free.replace("</body>", measuring), encoding="utf-8")

    opened = chromium(page.as_uri(), "--window-size=500,900")

    wide = re.search(r'data-wide="(\d+)"', opened.stdout)
    assert wide is not None
    assert int(wide.group(1)) <= 500


def opened_without_error(chromium: Chromium, tmp_path: Path, made: str, figures: int) -> None:
    page = tmp_path / "report.html"
    page.write_text(made, encoding="utf-8")

    opened = chromium(page.as_uri())

    dom = opened.stdout
    root = re.search(r"<html[^>]*>", dom)
    assert root is not None
    assert 'data-figures="drawn"' in root.group()
    assert "data-errors" not in root.group()
    assert "data-owned" not in root.group()
    # plotly draws each figure in layers, of which one is the lowest.
    assert dom.count('class="plot-container plotly"') == figures
    assert dom.count('class="main-svg"') >= 2 * figures
    assert "CONSOLE" not in opened.stderr
