"""The run report in a real browser, from disk: figures are drawn and nothing fails."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

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
from lodestar.report import RunReport, SplitSummary, render

HOSTILE = "</script><script>document.documentElement.dataset.owned = 1</script>"
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--window-size=1400,2600",
    "--virtual-time-budget=20000",
    "--dump-dom",
)


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


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("chromium is not on PATH: install it with `make system-packages`")
    return found


@pytest.mark.parametrize(
    ("task", "figures"),
    [("classification", 3), ("many classes", 2), ("regression", 3), ("causal", 2)],
)
def test_a_browser_draws_every_figure_from_disk_without_an_error(
    chromium: str, tmp_path: Path, task: str, figures: int
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(report(curves(task))), encoding="utf-8")

    opened = subprocess.run(
        [chromium, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )

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
