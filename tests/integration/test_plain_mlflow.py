"""The artifact in other hands: plain MLflow, a clean virtual environment, a project without its code."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]  # has no types
from tests.conftest import ROOT, SMALL, Lodestar, Trained, outbox

UV = Path(sys.executable).with_name("uv")

# Knows MLflow and pandas, and nothing of Lodestar.
PREDICT = """
import json, sys
import mlflow, pandas as pd
tracking, uri, rows, out = sys.argv[1:]
mlflow.set_tracking_uri(tracking)
model = mlflow.pyfunc.load_model(uri)
frames = model.predict(
    pd.read_parquet(rows), params={"run_mode": "batch", "return_intermediate": True}
)
frames["predictions"].to_parquet(out)
import lodestar
print(json.dumps({
    "frames": {name: list(frame.shape) for name, frame in frames.items()},
    "lodestar": lodestar.__file__,
}))
"""


def plain_mlflow(
    python: Sequence[str | Path], run: Trained, uri: str, rows: Path, out: Path, cwd: Path
) -> Any:  # noqa: ANN401 -- what the script prints
    """Load and predict with MLflow alone, in another process."""
    tracking = f"sqlite:///{run.project}/mlruns/mlflow.db"
    done = subprocess.run(
        [*python, "-c", PREDICT, tracking, uri, rows, out],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def ours(lodestar: Lodestar, run: Trained, tmp_path: Path, name: str = "ours") -> pd.DataFrame:
    """What batch-inference says of the same rows."""
    out = outbox(run.project, tmp_path) / f"{name}.parquet"
    lodestar(
        "batch-inference", "--run-id", run.run_id, "--output", out, cwd=run.project
    ).succeeded()
    frame: pd.DataFrame = pq.read_table(out).to_pandas()
    return frame


def test_plain_mlflow_loads_a_run_and_predicts_the_same(
    lodestar: Lodestar, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    run = trained("breast_cancer")
    rows, out = run.project / "data/breast_cancer.parquet", tmp_path / "plain.parquet"
    said = plain_mlflow([sys.executable], run, f"runs:/{run.run_id}/model", rows, out, cwd=tmp_path)
    assert said["frames"].keys() == {"predictions", "augmented", "preprocessed"}
    assert {shape[0] for shape in said["frames"].values()} == {569}
    plain = pd.read_parquet(out)
    expected = ours(lodestar, run, tmp_path)
    pd.testing.assert_frame_equal(plain, expected[list(plain.columns)], check_exact=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.faults
def test_a_clean_environment_from_its_own_requirements_predicts_the_same(
    lodestar: Lodestar, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    run = trained("wine", *SMALL)
    venv = tmp_path / "venv"
    uv(tmp_path, "venv", "--python", sys.executable, venv)
    requirements = run.artifact / "requirements.txt"
    uv(tmp_path, "pip", "install", "--python", venv / "bin/python", "-r", requirements)
    rows, out = run.project / "data/wine.parquet", tmp_path / "plain.parquet"
    # -I: neither PYTHONPATH nor the working directory can bring this checkout in.
    python: list[str | Path] = [venv / "bin/python", "-I"]
    absent = subprocess.run([*python, "-c", "import lodestar"], capture_output=True, check=False)
    assert absent.returncode == 1
    said = plain_mlflow(python, run, str(run.artifact), rows, out, cwd=tmp_path)
    assert Path(said["lodestar"]).is_relative_to(run.artifact / "code")
    assert not Path(said["lodestar"]).is_relative_to(ROOT / "src")
    plain = pd.read_parquet(out)
    expected = ours(lodestar, run, tmp_path)
    pd.testing.assert_frame_equal(plain, expected[list(plain.columns)], check_exact=True)


def test_conda_and_virtualenv_get_the_lock_too_and_nothing_of_the_callers_project(
    lodestar: Lodestar, project: Path
) -> None:
    for name in ("uv.lock", "pyproject.toml"):
        (project / name).write_text("version = 1\n", encoding="utf-8")
    run = Trained(project, lodestar("train", "-r", "wine", *SMALL, "--json", cwd=project).json)
    pins = (run.artifact / "requirements.txt").read_text("utf-8").splitlines()
    assert f"mlflow=={metadata.version('mlflow')}" in pins
    # As MLflow reads them, which is YAML 1.1.
    conda = yaml.safe_load((run.artifact / "conda.yaml").read_text("utf-8"))
    python, _, pip = conda["dependencies"]
    assert (python, pip) == (f"python={platform.python_version()}", {"pip": pins})
    virtualenv = yaml.safe_load((run.artifact / "python_env.yaml").read_text("utf-8"))
    assert virtualenv["python"] == platform.python_version()
    assert virtualenv["dependencies"] == ["-r requirements.txt"]
    assert not {"uv.lock", "pyproject.toml"} & {path.name for path in run.artifact.iterdir()}


def uv(cwd: Path, *args: str | Path) -> None:
    done = subprocess.run(
        [UV, *args], cwd=cwd, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr


OWN_CODE = '''\
"""A transformer and an estimator of this project."""

import pandas as pd

from own.arithmetic import average


class Doubled:
    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def fit(self, frame: pd.DataFrame, y: object = None) -> "Doubled":
        self.columns_ = [name for name in frame.columns if frame[name].dtype.kind == "f"]
        return self

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame[self.columns_] * self.factor


class ConstantPlusSlope:
    def __init__(self, slope: float = 1.0) -> None:
        self.slope = slope

    def fit(self, frame: pd.DataFrame, y: object) -> "ConstantPlusSlope":
        self.mean_ = average(y)
        return self

    def predict(self, frame: pd.DataFrame) -> object:
        return self.mean_ + self.slope * frame["bmi"].to_numpy()
'''
OWN_RECIPE = """\
model: {class_path: own.learning.ConstantPlusSlope, hyperparameters: {slope: 3.0}}
loader: {source_uri: data/diabetes.parquet}
preprocessor: {class_path: own.learning.Doubled, params: {factor: 2.0}}
data_interface: {task_type: regression, target_col: progression, entity_keys: [patient_id]}
"""


@pytest.mark.faults
def test_the_projects_own_classes_travel_in_the_artifact(
    lodestar: Lodestar, project: Path, tmp_path: Path
) -> None:
    own = project / "own"
    own.mkdir()
    (own / "__init__.py").touch()
    (own / "learning.py").write_text(OWN_CODE, encoding="utf-8")
    (own / "arithmetic.py").write_text(
        "def average(values):\n    return sum(values) / len(values)\n", encoding="utf-8"
    )
    (project / "recipes/own.yaml").write_text(OWN_RECIPE, encoding="utf-8")
    done = lodestar("train", "-r", "own", "--json", cwd=project).succeeded()
    run = Trained(project, done.json)
    carried = sorted(path.name for path in (run.artifact / "code/own").iterdir())
    assert carried == ["__init__.py", "arithmetic.py", "learning.py"]
    before = ours(lodestar, run, tmp_path, "before")

    # What the module says now is not what was trained; then it is gone.
    (own / "arithmetic.py").write_text("raise SystemExit('not the carried one')\n")
    (own / "learning.py").write_text("raise SystemExit('not the carried one')\n")
    changed = ours(lodestar, run, tmp_path, "changed")
    for path in own.glob("*.py"):
        path.unlink()
    gone = ours(lodestar, run, tmp_path, "gone")
    pd.testing.assert_frame_equal(before, changed)
    pd.testing.assert_frame_equal(before, gone)

    rows = pq.read_table(project / "data/diabetes.parquet").to_pandas()
    slope = before["prediction"] - 3.0 * 2.0 * rows["bmi"]
    assert slope.max() - slope.min() < 1e-9

    out = tmp_path / "plain.parquet"
    plain_mlflow(
        *([sys.executable], run, f"runs:/{run.run_id}/model"),
        *(project / "data/diabetes.parquet", out),
        cwd=tmp_path,
    )
    assert list(pd.read_parquet(out)["prediction"]) == list(before["prediction"])
