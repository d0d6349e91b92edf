"""Scoring a batch beyond one process: ours, here and on Ray, against Ray Data and Spark by hand.

The rows and models are those of `batch.py`: 16 numeric and 4 text columns and a key through 300 trees of
depth 6, parquet to parquet. The peers score what one would log without Lodestar, a scikit-learn
pipeline in MLflow, whose predictor they load once per worker. Each way is one command with all its
processes, from start to the finished file, on two processors. Memory is the peak of the sum of all
processes' proportional sets, seen every half second. Spark needs Java, and is installed into an
environment of its own.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch import RECIPE, TRAIN_ROWS
from measure import LODESTAR, compile_bytecode, print_machine, print_table, run, workspace
from serving_peers import peer_python
from watched import Watched, watched

LOOK = 0.5  # seconds
START_ROWS = 1_000
WORKERS, BATCH = 2, 65_536
LOCAL, RAY = "lodestar, engine local", "lodestar, engine ray"
FRAME, RAY_DATA, SPARK = "one frame in MLflow", "Ray Data by hand", "Spark UDF, local[2]"
SPARK_PACKAGE = "pyspark==4.0.1"


@dataclass(frozen=True)
class Took:
    """Seconds from start to end, and MB of all processes together at the peak."""

    wall: float
    peak: float


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--without", nargs="*", default=[], choices=["frame", "spark", "ray-data"])
    options.add_argument("--spark-python", help="an environment with pyspark that is there already")
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    print_machine()
    compile_bytecode()
    with workspace() as folder, tempfile.TemporaryDirectory() as environments:
        spark = None
        if "spark" not in given.without:
            spark = given.spark_python or _spark_python(Path(environments))
        run_id, peer = _prepare(folder, given.rows)
        ways = _ways(folder, run_id, peer, spark, given.without)
        started = _measured(folder, ways, START_ROWS, given.rounds)
        _print_table(START_ROWS, started, {})
        peaks: dict[str, dict[int, float]] = {name: {} for name in ways}
        for rows in given.rows:
            took = _measured(folder, ways, rows, given.rounds)
            _print_table(rows, took, started)
            for name, found in took.items():
                peaks[name][rows] = found.peak
            print("  " + run(_child("same"), folder).stdout.strip())
        if len(given.rows) > 1:
            _print_growth(given.rows, peaks)


def _prepare(folder: Path, sizes: Sequence[int]) -> tuple[str, str]:
    sys.stderr.write("making data and training\n")
    recipe = RECIPE.format(source="data/rows.parquet")
    (folder / "recipes" / "rows.yaml").write_text(recipe, encoding="utf-8")
    ray = f"execution: {{engine: ray, ray: {{workers: {WORKERS}}}}}\n"
    (folder / "config" / "ray.yaml").write_text(ray, encoding="utf-8")
    batch = [sys.executable, str(Path(__file__).with_name("batch.py")), "--child"]
    run([*batch, "make", "data/rows.parquet", str(TRAIN_ROWS), "labelled"], folder)
    done = run([LODESTAR, "train", "-r", "rows", "--json"], folder)
    peer = run([*batch, "train_peer"], folder).stdout.strip()
    for rows in (START_ROWS, *sizes):
        run(_child("make", f"rows_{rows}.parquet", str(rows)), folder)
    return str(json.loads(done.stdout)["run_id"]), peer


def _ways(
    folder: Path, run_id: str, peer: str, spark: str | None, without: Sequence[str]
) -> dict[str, Sequence[str]]:
    own = [LODESTAR, "batch-inference", "--run-id", run_id]
    batch = [sys.executable, str(Path(__file__).with_name("batch.py")), "--child"]
    ways: dict[str, Sequence[str]] = {
        LOCAL: [*own, "--output", str(folder / "local.parquet")],
        RAY: [*own, "--env", "ray", "--output", str(folder / "ray.parquet")],
    }
    if "frame" not in without:
        ways[FRAME] = [*batch, "one_frame", peer]
    if "ray-data" not in without:
        ways[RAY_DATA] = _child("ray_data", peer)
    if spark:
        ways[SPARK] = [spark, __file__, "--child", "spark", peer]
    return ways


def _measured(
    folder: Path, ways: Mapping[str, Sequence[str]], rows: int, rounds: int
) -> dict[str, Took]:
    """Every way once per round; the medians."""
    current = folder / "data" / "rows.parquet"
    current.unlink(missing_ok=True)
    current.hardlink_to(folder / f"rows_{rows}.parquet")
    costs: dict[str, list[Watched]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, command in ways.items():
            took = watched(command, folder, every=LOOK)
            costs[name].append(took)
            note = f"{took.wall:.1f} s, {took.peak:,.0f} MB"
            sys.stderr.write(f"  {rows:,} rows, round {turn + 1} of {rounds}: {name}: {note}\n")
    return {
        name: Took(
            statistics.median(one.wall for one in each), statistics.median(one.peak for one in each)
        )
        for name, each in costs.items()
    }


def _print_table(rows: int, took: Mapping[str, Took], started: Mapping[str, Took]) -> None:
    def speed(name: str) -> str:
        """Without start-up; nothing where that is most of it, for then the noise of both is left."""
        scoring = took[name].wall - started[name].wall
        return f"{rows / scoring:,.0f}" if scoring > started[name].wall else "-"

    header = ["way", "wall s", "peak MB", "rows/s whole"]
    lines = [
        [name, f"{one.wall:.1f}", f"{one.peak:,.0f}", f"{rows / one.wall:,.0f}"]
        for name, one in took.items()
    ]
    if started:
        header += ["× local", "rows/s scoring"]
        for line, name in zip(lines, took, strict=True):
            line += [f"{took[LOCAL].wall / took[name].wall:.2f}", speed(name)]
    print_table(f"{rows:,} rows: medians; scoring = without start-up", header, lines)


def _print_growth(sizes: Sequence[int], peaks: Mapping[str, Mapping[int, float]]) -> None:
    print(f"\nPeak memory at {max(sizes):,} rows ÷ that at {min(sizes):,}")
    for name, by_rows in peaks.items():
        print(f"  {name}: {by_rows[max(sizes)] / by_rows[min(sizes)]:.2f} ×")


def _child(*words: str) -> list[str]:
    return [sys.executable, __file__, "--child", *words]


def _spark_python(folder: Path) -> str | None:
    """A Python with Spark on top of ours; None where there is no Java."""
    if shutil.which("java") is None:
        print("Spark is left out: there is no Java on this machine")
        return None
    sys.stderr.write("installing Spark\n")
    return peer_python(folder, SPARK_PACKAGE)


# What follows runs in processes of its own.


def make(path: str, rows: str) -> None:
    """Write the rows of `batch.py`, in row groups that several can share."""
    import pyarrow.parquet as pq
    from batch import make as made

    made(f"whole_{path}", rows, "bare")
    whole = pq.ParquetFile(f"whole_{path}")
    with pq.ParquetWriter(path, whole.schema_arrow) as writer:
        for batch in whole.iter_batches(131_072):
            writer.write_batch(batch)
    Path(f"whole_{path}").unlink()


def ray_data(model_uri: str) -> None:
    """A job as Ray's own guide to offline inference has it: a class loads the model, once per worker."""
    from lodestar.execution.ray_cluster import QUIET, alone

    os.environ |= QUIET | alone()
    import mlflow
    import ray

    class Predictor:
        """Loads the model when its worker starts."""

        def __init__(self) -> None:
            mlflow.set_tracking_uri(f"sqlite:///{place}/mlruns/mlflow.db")
            self.model = mlflow.pyfunc.load_model(model_uri)

        def __call__(self, frame: Any) -> Any:  # noqa: ANN401 -- pandas
            predicted = self.model.predict(frame)
            return frame[["id"]].assign(prediction=predicted)

    place = Path.cwd()
    shutil.rmtree("ray_data", ignore_errors=True)
    # One more slot than there are predictors, for what reads and writes.
    slots = WORKERS + 1
    ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False)
    rows = ray.data.read_parquet(f"{place}/data/rows.parquet")
    scored = rows.map_batches(
        Predictor,
        batch_size=BATCH,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=WORKERS),
    )
    scored.write_parquet(f"{place}/ray_data")


def spark(model_uri: str) -> None:
    """A job as MLflow's own documentation has it."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    import mlflow
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import struct

    session = (
        SparkSession.builder.master(f"local[{WORKERS}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "4g")
        .getOrCreate()
    )
    mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
    predict = mlflow.pyfunc.spark_udf(session, model_uri, result_type="long", env_manager="local")
    rows = session.read.parquet("data/rows.parquet")
    names = [name for name in rows.columns if name != "id"]
    scored = rows.select("id", predict(struct(*names)).alias("prediction"))
    scored.write.mode("overwrite").parquet("spark")


def same() -> None:
    """Hold the two files of ours against each other, byte by byte."""
    if Path("local.parquet").read_bytes() != Path("ray.parquet").read_bytes():
        raise SystemExit("the files of the two engines differ")
    print("met     the file of engine ray is that of engine local, byte by byte")


CHILDREN: dict[str, Callable[..., None]] = {
    "make": make,
    "ray_data": ray_data,
    "spark": spark,
    "same": same,
}


if __name__ == "__main__":
    main()
