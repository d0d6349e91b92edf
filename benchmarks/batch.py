"""Scoring a batch, parquet to parquet: ours against MLflow's pyfunc on one pandas frame and on chunks.

The same rows (16 numeric and 4 text columns, and a key) go through 300 trees of depth 6. The peer is
what one would log without Lodestar: a scikit-learn pipeline (StandardScaler, OneHotEncoder,
XGBClassifier) saved with `mlflow.sklearn.log_model`. Each way is one process, from start to the
finished file; start-up is the same process on 1,000 rows.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import (
    LODESTAR,
    Cost,
    compile_bytecode,
    interleaved,
    median,
    print_machine,
    print_table,
    print_verdict,
    run,
    workspace,
)

NUMERIC, CATEGORIES = 16, (8, 10, 12, 14)
CHUNK = 65_536
TRAIN_ROWS, START_ROWS, MANY = 100_000, 1_000, 2_000_000
SEED = 20_250_713
TREES = {"n_estimators": 300, "max_depth": 6, "learning_rate": 0.1}
URI, SQL = "lodestar, data URI", "lodestar, SQL loader"
ONE_FRAME, CHUNKED = "sklearn pipeline in MLflow, one frame", "the same, chunks of 65,536"
OWN_IN_MLFLOW = "our artifact in plain MLflow, one frame"
RECIPE = """\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters: {{n_estimators: 300, max_depth: 6, learning_rate: 0.1}}
loader:
  source_uri: {source}
preprocessor:
  name: simple_scaler
data_interface:
  task_type: classification
  target_col: bought
  entity_keys: [id]
"""


@dataclass(frozen=True)
class Bench:
    """A project with trained models, and files of several sizes to score."""

    folder: Path
    uri_run: str
    sql_run: str
    peer: str

    def score(self, rows: int, run_id: str) -> Cost:
        """Ours, as a user would start it; the artifact's loader names data/rows.parquet."""
        self._use(rows)
        output = str(self.folder / f"ours_{'uri' if run_id == self.uri_run else 'sql'}.parquet")
        command = [LODESTAR, "batch-inference", "--run-id", run_id, "--output", output, "--json"]
        return run(command, self.folder)

    def peer_way(self, rows: int, way: str, model: str) -> Cost:
        """Another way to score the same file, in a process of its own."""
        self._use(rows)
        return run([sys.executable, __file__, "--child", way, model], self.folder)

    def _use(self, rows: int) -> None:
        current = self.folder / "data" / "rows.parquet"
        current.unlink(missing_ok=True)
        current.hardlink_to(self.folder / f"rows_{rows}.parquet")


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="200,000 rows only")
    options.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    sizes = [200_000] if given.quick else given.rows
    print_machine()
    compile_bytecode()
    with workspace() as folder:
        bench = _prepare(folder, sizes)
        peaks = {}
        for rows in sizes:
            start, costs = _measure(bench, rows, rounds=1 if given.quick or rows > MANY else 3)
            _print_start(start)
            _print_size(rows, costs, start)
            _print_equality(bench)
            peaks[rows] = {name: costs[name].peak for name in (URI, SQL)}
        _print_flatness(peaks)


def _prepare(folder: Path, sizes: list[int]) -> Bench:
    sys.stderr.write("making data and training\n")
    for name, source in (("uri", "data/rows.parquet"), ("sql", "recipes/rows.sql")):
        recipe = RECIPE.format(source=source)
        (folder / "recipes" / f"{name}.yaml").write_text(recipe, encoding="utf-8")
    (folder / "recipes" / "rows.sql").write_text("SELECT * FROM rows\n", encoding="utf-8")
    make = [sys.executable, __file__, "--child", "make"]
    run([*make, "data/rows.parquet", str(TRAIN_ROWS), "labelled"], folder)

    def train(name: str) -> str:
        report = run([LODESTAR, "train", "-r", name, "--json"], folder).stdout
        return str(json.loads(report)["run_id"])

    uri_run, sql_run = train("uri"), train("sql")
    peer = run([sys.executable, __file__, "--child", "train_peer"], folder).stdout.strip()
    for rows in (START_ROWS, *sizes):
        run([*make, f"rows_{rows}.parquet", str(rows), "bare"], folder)
    return Bench(folder, uri_run, sql_run, peer)


def _measure(bench: Bench, rows: int, *, rounds: int) -> tuple[dict[str, Cost], dict[str, Cost]]:
    """Start-up and whole runs, interleaved; the larger file comes last, for the comparison."""
    sys.stderr.write(f"{rows:,} rows\n")
    own = f"runs:/{bench.uri_run}/model"

    def ways(count: int) -> dict[str, Callable[[], Cost]]:
        return {
            URI: lambda: bench.score(count, bench.uri_run),
            ONE_FRAME: lambda: bench.peer_way(count, "one_frame", bench.peer),
            SQL: lambda: bench.score(count, bench.sql_run),
            CHUNKED: lambda: bench.peer_way(count, "chunked", bench.peer),
            OWN_IN_MLFLOW: lambda: bench.peer_way(count, "one_frame", own),
        }

    both = {f"{name}, start-up": way for name, way in ways(START_ROWS).items()} | ways(rows)
    medians = {
        name: median(costs) for name, costs in interleaved(both, rounds, warm_up=False).items()
    }
    start = {name: medians[f"{name}, start-up"] for name in ways(rows)}
    return start, {name: medians[name] for name in ways(rows)}


def _print_size(rows: int, costs: dict[str, Cost], start: dict[str, Cost]) -> None:
    def scoring(name: str) -> float:
        return rows / (costs[name].wall - start[name].wall)

    def whole(name: str) -> float:
        return rows / costs[name].wall

    print_table(
        f"{rows:,} rows: medians; scoring = without start-up",
        (
            "way",
            "wall s",
            "CPU s",
            "peak MB",
            "rows/s whole",
            "× one frame",
            "rows/s scoring",
            "× one frame",
        ),
        [
            (
                name,
                f"{cost.wall:.1f}",
                f"{cost.cpu:.1f}",
                f"{cost.peak:,.0f}",
                f"{whole(name):,.0f}",
                f"{whole(name) / whole(ONE_FRAME):.2f}",
                f"{scoring(name):,.0f}",
                f"{scoring(name) / scoring(ONE_FRAME):.2f}",
            )
            for name, cost in costs.items()
        ],
    )
    target = 3 if rows > MANY else 2.2
    for name in (URI, SQL):
        ratio = whole(name) / whole(ONE_FRAME)
        print_verdict(f"{name}: whole process ÷ one frame", ratio, target, least=True)
        ratio = scoring(name) / scoring(ONE_FRAME)
        print_verdict(f"{name}: scoring alone ÷ one frame", ratio, target, least=True)
        print_verdict(f"{name}: peak memory", costs[name].peak, 450, unit=" MB", least=False)


def _print_equality(bench: Bench) -> None:
    compared = run([sys.executable, __file__, "--child", "compare"], bench.folder).stdout
    print(f"  {compared.strip()}")


def _print_start(start: dict[str, Cost]) -> None:
    print_table(
        f"Start-up: the same processes on {START_ROWS:,} rows",
        ("way", "wall s", "CPU s", "peak MB"),
        [
            (name, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.peak:,.0f}")
            for name, cost in start.items()
        ],
    )


def _print_flatness(peaks: dict[int, dict[str, float]]) -> None:
    if len(peaks) < 2:
        return
    print("\nMemory from the smallest to the largest file")
    for name in (URI, SQL):
        growth = peaks[max(peaks)][name] / peaks[min(peaks)][name]
        print_verdict(f"{name}: growth of the peak", growth, 1.1, least=False)


# What follows runs in processes of its own.


def make(path: str, rows: str, kind: str) -> None:
    """Write seeded rows, chunk by chunk, with pyarrow's default row groups."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    group = 1 << 20
    generator = np.random.default_rng(SEED)
    writer = None
    for first in range(0, int(rows), group):
        count = min(group, int(rows) - first)
        numbers = generator.normal(size=(NUMERIC, count))
        numbers = numbers * np.logspace(-1, 3, NUMERIC)[:, None] + 5
        codes = [generator.integers(0, most, size=count) for most in CATEGORIES]
        columns: dict[str, Any] = {"id": pa.array(np.arange(first, first + count))}
        columns |= {f"n{at:02}": pa.array(values) for at, values in enumerate(numbers)}
        for at, (values, most) in enumerate(zip(codes, CATEGORIES, strict=True)):
            labels = pa.array([f"category {label}" for label in range(most)])
            columns[f"c{at}"] = labels.take(pa.array(values))
        if kind == "labelled":
            scaled = (numbers - 5) / np.logspace(-1, 3, NUMERIC)[:, None]
            score = scaled[:6].sum(axis=0) + scaled[6] * scaled[7] + (codes[0] - 4) * scaled[8]
            noise = generator.normal(size=count)
            columns["bought"] = pa.array((score + noise > 0).astype(np.int64))
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=group)
    if writer is not None:
        writer.close()


def train_peer() -> None:
    """Log the scikit-learn pipeline; prints its model URI."""
    import mlflow
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from xgboost import XGBClassifier

    frame = pd.read_parquet("data/rows.parquet")
    numeric = [f"n{at:02}" for at in range(NUMERIC)]
    texts = [f"c{at}" for at in range(len(CATEGORIES))]
    scaler = ColumnTransformer(
        [
            ("numbers", StandardScaler(), numeric),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
        ]
    )
    model = make_pipeline(scaler, XGBClassifier(**TREES)).fit(frame, frame["bought"])
    mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
    mlflow.set_experiment("lodestar")
    with mlflow.start_run() as active:
        mlflow.sklearn.log_model(
            model,
            name="model",
            pip_requirements=["scikit-learn", "xgboost"],
            skops_trusted_types=["xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"],
        )
    print(f"runs:/{active.info.run_id}/model")


def one_frame(model_uri: str) -> None:
    """Read everything, predict once, write."""
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
    model = mlflow.pyfunc.load_model(model_uri)
    frame = pd.read_parquet("data/rows.parquet")
    _result(frame, model.predict(frame)).to_parquet("one_frame.parquet", index=False)


def chunked(model_uri: str) -> None:
    """The same, 65,536 rows at a time."""
    import mlflow
    import pyarrow as pa
    import pyarrow.parquet as pq

    mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
    model = mlflow.pyfunc.load_model(model_uri)

    def results() -> Iterator[pa.RecordBatch]:
        for batch in pq.ParquetFile("data/rows.parquet").iter_batches(CHUNK):
            frame = batch.to_pandas()
            yield pa.RecordBatch.from_pandas(_result(frame, model.predict(frame)))

    writer = None
    for result in results():
        writer = writer or pq.ParquetWriter("chunked.parquet", result.schema)
        writer.write_batch(result)
    if writer is not None:
        writer.close()


def _result(frame: Any, predicted: Any) -> Any:  # noqa: ANN401 -- pandas, imported in children alone
    import pandas as pd

    if isinstance(predicted, pd.DataFrame):
        return pd.concat([frame[["id"]], predicted], axis=1)
    return pd.DataFrame({"id": frame["id"], "prediction": predicted})


def compare() -> None:
    """Hold our files against what the wrapper's own `predict` said of one frame, bit by bit."""
    import numpy as np
    import pyarrow.parquet as pq

    names = ["id", "prediction", "probability_0", "probability_1"]
    expected = pq.read_table("one_frame.parquet", columns=names)
    for path in ("ours_uri.parquet", "ours_sql.parquet"):
        table = pq.read_table(path, columns=names)
        for name in names:
            ours, theirs = table.column(name).to_numpy(), expected.column(name).to_numpy()
            if ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes():
                differing = int(np.sum(ours != theirs))
                raise SystemExit(f"{path}: {name} differs in {differing} of {len(theirs)} rows")
    print(f"met     {len(expected):,} predictions, URI and SQL, bitwise the wrapper's own predict")


CHILDREN: dict[str, Callable[..., None]] = {
    "make": make,
    "train_peer": train_peer,
    "one_frame": one_frame,
    "chunked": chunked,
    "compare": compare,
}


if __name__ == "__main__":
    main()
