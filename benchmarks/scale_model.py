"""What batches and searches cost by rows, columns, trees, trials and workers: measured, then projected.

`measure` runs whole commands and appends what each took to a file, a line of JSON each; what is there
already is not run again, so that it can be done in pieces (`--seconds` is when to begin nothing more).
`fit` needs only that file. The rows are a folder of links to one file of a million rows: 10⁸ of them
take no disk of their own, and lie in the page cache after the first; what comes out takes 50 bytes each.

    scale_model.py measure times.json --rows 100000 1000000 --engines local ray1 ray2
    scale_model.py measure times.json --rows 100000000 --engines local --seconds 3600
    scale_model.py fit times.json

The models, in seconds, for R rows, C columns, T trees of depth 6, W workers, N trials:

- engine `local`: start + R (a + b C + c T);
- engine `ray`: start + R (a + b C + c T) / W where the workers are what is waited for, and start + R d
  where the command is: d is the processor time that it takes itself for each row, which is measured;
- a search: start + N (u + v R).

Each is fitted by least squares on relative residuals, with no coefficient below zero.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from measure import LODESTAR, compile_bytecode, print_machine, run, workspace
from scale_fit import Point, Took, print_models
from watched import watched

LOOK = 0.2  # seconds
GROUP, START_ROWS, TRAIN_ROWS = 131_072, 1_000, 50_000
ENGINES = {"local": "", "ray1": "ray1", "ray2": "ray2"}
RECIPE = """\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters: {{n_estimators: {trees}, max_depth: 6, learning_rate: {rate}}}
{search}loader:
  source_uri: data/rows
preprocessor:
  name: simple_scaler
data_interface:
  task_type: classification
  target_col: bought
  entity_keys: [id]
"""
SEARCH = """\
hyperparameter_tuning: {enabled: true, n_trials: 5, metric: roc_auc, direction: maximize}
"""


def main() -> None:
    """Measure or fit."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("what", choices=["measure", "fit"])
    options.add_argument("times", type=Path, help="JSON file to which measurements are appended")
    options.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    options.add_argument("--columns", type=int, nargs="+", default=[20])
    options.add_argument("--trees", type=int, nargs="+", default=[300])
    options.add_argument("--trials", type=int, nargs="*", default=[])
    options.add_argument("--engines", nargs="+", choices=list(ENGINES), default=["local"])
    options.add_argument("--outputs", nargs="+", choices=["file", "folder"], default=["file"])
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--seconds", type=float, default=float("inf"))
    options.add_argument("--file-rows", type=int, default=1_000_000, help="of each linked file")
    given = options.parse_args()
    if given.what == "fit":
        print_models(_read(given.times))
        return
    print_machine()
    compile_bytecode()
    _measure(given, time.monotonic() + given.seconds)


def _measure(given: argparse.Namespace, until: float) -> None:
    """Run what is missing, small sizes first; start-up is the same on 1,000 rows."""
    wanted = [
        Point("batch", engine, rows, columns, trees, output=output)
        for rows in sorted({START_ROWS, *given.rows})
        for output in given.outputs
        for columns in given.columns
        for trees in given.trees
        for engine in given.engines
    ]
    wanted += [
        Point("search", engine, rows, given.columns[0], given.trees[0], trials)
        for rows in given.rows
        if rows <= given.file_rows
        for trials in given.trials
        for engine in given.engines
    ]
    for turn in range(given.rounds):
        for columns, trees in {(one.columns, one.trees): None for one in wanted}:
            todo = [
                one
                for one in wanted
                if (one.columns, one.trees) == (columns, trees)
                and sum(point == one for point, _ in _read(given.times)) <= turn
            ]
            if todo and time.monotonic() < until:
                with workspace() as folder:
                    bench = _Bench(folder, columns, trees, given.file_rows)
                    for point in todo:
                        if time.monotonic() < until:
                            _keep(given.times, point, bench.took(point))


def _read(path: Path) -> list[tuple[Point, Took]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    said = [json.loads(line) for line in lines if line]
    return [(Point(**one["point"]), Took(**one["took"])) for one in said]


def _keep(path: Path, point: Point, took: Took) -> None:
    """One line per measurement: what is cut off is one of them."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"point": asdict(point), "took": asdict(took)}) + "\n")
    sys.stderr.write(f"  {point}\n    {took}\n")


class _Bench:
    """A project with a model of so many columns and trees, and a file to link to."""

    def __init__(self, folder: Path, columns: int, trees: int, file_rows: int) -> None:
        self._folder = folder
        self._file_rows = file_rows
        for name, workers in (("ray1", 1), ("ray2", 2)):
            text = f"execution: {{engine: ray, ray: {{workers: {workers}}}}}\n"
            jobs = f"{{enabled: true, timeout: 36000, parallelization: {{n_jobs: {workers}}}}}"
            text += f"hyperparameter_tuning: {jobs}\n"
            (folder / f"config/{name}.yaml").write_text(text, encoding="utf-8")
        on = "hyperparameter_tuning: {enabled: true, timeout: 36000}\n"
        (folder / "config/search.yaml").write_text(on, encoding="utf-8")
        rate = "{type: float, low: 0.05, high: 0.3}"
        for name, text in (
            ("rows", RECIPE.format(trees=trees, rate=0.1, search="")),
            ("search", RECIPE.format(trees=trees, rate=rate, search=SEARCH)),
        ):
            (folder / f"recipes/{name}.yaml").write_text(text, encoding="utf-8")
        self._make("bare.parquet", columns)
        self._make("labelled.parquet", columns, "labelled")
        self._lay("labelled.parquet", min(TRAIN_ROWS, file_rows))
        done = run([LODESTAR, "train", "-r", "rows", "--json"], folder)
        self._run = str(json.loads(done.stdout)["run_id"])

    def took(self, point: Point) -> Took:
        env = ENGINES[point.engine]
        if point.kind == "batch":
            self._lay("bare.parquet", point.rows)
            command = [LODESTAR, "batch-inference", "--run-id", self._run]
            place = {"file": "scored.parquet", "folder": "scored/"}[point.output]
            command += ["--output", f"{self._folder}/{place}"]
            command += ["--env", env] if env else []
        else:
            self._lay("labelled.parquet", point.rows)
            command = [LODESTAR, "train", "-r", "search", "--env", env or "search"]
            command += ["--set", f"hyperparameter_tuning.n_trials={point.trials}"]
        try:
            return _watched(command, self._folder)
        finally:
            (self._folder / "scored.parquet").unlink(missing_ok=True)
            shutil.rmtree(self._folder / "scored", ignore_errors=True)
            shutil.rmtree(self._folder / ".lodestar/studies", ignore_errors=True)

    def _make(self, name: str, columns: int, kind: str = "bare") -> None:
        program = Path(__file__).with_name("scale_rows.py")
        words = [sys.executable, str(program), name, str(self._file_rows), str(columns)]
        run([*words, str(GROUP), kind], self._folder)

    def _lay(self, name: str, rows: int) -> None:
        """So many rows below data/rows: whole files as links, and the rest in one of its own."""
        place = self._folder / "data/rows"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for number in range(rows // self._file_rows):
            (place / f"part-{number:05}.parquet").hardlink_to(self._folder / name)
        if rest := rows % self._file_rows:
            program = Path(__file__).with_name("scale_rows.py")
            words = [sys.executable, str(program), name, str(rest), "0", str(GROUP), "first"]
            run([*words, str(place / "part-rest.parquet")], self._folder)


def _watched(command: Sequence[str], folder: Path) -> Took:
    load = os.getloadavg()[0]
    seen = watched(command, folder, every=LOOK)
    return Took(seen.wall, seen.own, seen.below, seen.peak, load)


if __name__ == "__main__":
    main()
