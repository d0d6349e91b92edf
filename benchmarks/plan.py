"""Scoring a few rows at a time: machine code and numpy against the artifact's own ways.

5 number and 4 text columns become about 60 features for 300 trees of depth 6. Every way is given what
a server would give it: ours rows of plain values, `PyfuncWrapper.score` (and our generic scorer, which
calls it) what it needs an Arrow batch for, `PyfuncWrapper.predict` a pandas frame. All answers are
compared bit by bit first. Then: what a process costs until it can score, with the artifact loaded and
with a plan that was kept.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
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

SIZES = (1, 64, 256)
TRAIN_ROWS, SEED = 20_000, 20_250_713
# Every way is called so often before the next one's turn: the first call finds cold caches.
TURNS, QUICK, IN_TURN = 60, 8, 10
NATIVE, NUMPY, GENERIC = "native", "numpy", "generic (rows → Arrow → score)"
SCORE, PREDICT = "PyfuncWrapper.score, Arrow batch", "PyfuncWrapper.predict, pandas frame"
LOADED, KEPT = "artifact loaded, plan proven", "kept plan read and compared"
MODELS = {
    "XGBoost, 2 classes": ("xgboost.XGBClassifier", "classification"),
    "LightGBM, 2 classes": ("lightgbm.LGBMClassifier", "classification"),
    "causalml, 2 boosters": ("causalml.inference.meta.XGBTRegressor", "causal"),
}
RECIPE = """\
model:
  class_path: {class_path}
  hyperparameters: {{n_estimators: {trees}, max_depth: 6, learning_rate: 0.1}}
loader:
  source_uri: data/rows.parquet
preprocessor:
  name: simple_scaler
data_interface:
  task_type: {task}
  target_col: bought
  entity_keys: [id]
{more}
"""
TREATED = "  treatment_col: campaign\n  treatment_value: treatment"
EXCLUDED = "  params: {exclude_cols: [campaign]}"


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="fewer calls")
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    # The server is one process a processor; a second thread would only wait for the first.
    os.environ["OMP_NUM_THREADS"] = "1"
    print_machine()
    compile_bytecode()
    with workspace() as folder:
        _child(folder, "make")
        for name, (class_path, task) in MODELS.items():
            sys.stderr.write(f"{name}: training\n")
            artifact = _train(folder, class_path, task)
            turns = QUICK if given.quick else TURNS
            _print_times(name, json.loads(_child(folder, "measure", artifact, str(turns)).stdout))
            _print_starts(folder, artifact, rounds=1 if given.quick else 3)


def _train(folder: Path, class_path: str, task: str) -> str:
    """The trained artifact's folder."""
    causal = task == "causal"
    recipe = RECIPE.format(
        class_path=class_path,
        task=task,
        trees=150 if causal else 300,
        more=TREATED if causal else "",
    )
    if not causal:
        recipe = recipe.replace("name: simple_scaler", f"name: simple_scaler\n{EXCLUDED}")
    (folder / "recipes" / "rows.yaml").write_text(recipe, encoding="utf-8")
    said = json.loads(run([LODESTAR, "train", "-r", "rows", "--json"], folder).stdout)
    return str(folder / said["artifact_uri"])


def _child(folder: Path, *words: str) -> Cost:
    return run([sys.executable, __file__, "--child", *words], folder)


def _print_times(model: str, seen: dict[str, Any]) -> None:
    times = seen["times"]
    print(f"\n{model}: every way answers {seen['rows']} rows with the same bits")
    rows = []
    for way, of_size in times.items():
        first, again = of_size["1"]
        cells = [f"{of_size[str(size)][1]:,.0f}" for size in SIZES[1:]]
        row = f"{of_size['64'][1] / 64:.1f}"
        rows.append((way, f"{first:,.0f}", f"{again:,.0f}", *cells, row))
    print_table(
        "median µs a call, in turns of 10 calls a way",
        ("way", "1 row, first of a turn", "1 row", "64 rows", "256 rows", "a row of 64"),
        rows,
    )
    print(f"  refusal of a row of 9 columns: {seen['refusal']:.1f} µs")
    print_verdict("native, 1 row", times[NATIVE]["1"][1], 60, unit=" µs", least=False)
    print_verdict("native, a row of 64", times[NATIVE]["64"][1] / 64, 10, unit=" µs", least=False)
    print_verdict("refusal of a row", seen["refusal"], 3, unit=" µs", least=False)


def _print_starts(folder: Path, artifact: str, *, rounds: int) -> None:
    """What it costs to be able to score; and bare Python, with numpy and Arrow alone."""
    said: dict[str, dict[str, float]] = {}

    def opened(way: str) -> Cost:
        cost = _child(folder, "open", way, artifact)
        said[way] = json.loads(cost.stdout)
        return cost

    costs = interleaved({way: partial(opened, way) for way in ("nothing", LOADED, KEPT)}, rounds)
    rows = []
    for way, found in costs.items():
        cost = median(found)
        note = said[way]
        rows.append(
            (way, f"{cost.wall:.2f} s", f"{cost.cpu:.2f} s", f"{note['rss']:.0f} MB",
             f"{note['plan']:.2f} s")
        )  # fmt: skip
    print_table(
        "a process until it can score",
        ("way", "wall", "processor", "resident", "of which plan"),
        rows,
    )


def make() -> None:
    """The rows to train on: nulls in some columns, more categories than get a feature each."""
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(SEED)

    def sometimes(values: Any) -> Any:  # noqa: ANN401 -- numpy arrays
        return pd.Series(values).where(draw.random(TRAIN_ROWS) > 0.05)

    frame = pd.DataFrame(
        {
            "id": np.arange(TRAIN_ROWS),
            "age": draw.integers(18, 90, TRAIN_ROWS),
            "amount": draw.lognormal(3, 2, TRAIN_ROWS),
            "score": sometimes(draw.normal(size=TRAIN_ROWS)),
            "visits": sometimes(draw.poisson(3, TRAIN_ROWS).astype(float)),
            "ratio": draw.random(TRAIN_ROWS),
            "country": sometimes(
                [f"c{at}" for at in np.minimum(draw.geometric(0.1, TRAIN_ROWS), 22)]
            ),
            "device": draw.choice(["ios", "android", "web"], TRAIN_ROWS),
            "plan": draw.choice(list("abcdefgh"), TRAIN_ROWS),
            "segment": sometimes(draw.choice([f"s{at}" for at in range(14)], TRAIN_ROWS)),
            "campaign": draw.choice(["treatment", "control"], TRAIN_ROWS),
        }
    )
    chance = np.log(frame.amount) - 3 + frame.score.fillna(0) + (frame.device == "ios")
    chance += (frame.campaign == "treatment") * frame.ratio + draw.normal(size=TRAIN_ROWS)
    frame["bought"] = (chance > 1).astype(int)
    frame.to_parquet("data/rows.parquet")


def measure(artifact: str, turns: str) -> None:
    """Check that all ways agree, then time them in turn."""
    import pyarrow.parquet as pq

    from lodestar.serving.plan import row_scorer, rows_of
    from lodestar.serving.plan.generic import GenericScorer, batch_of
    from lodestar.serving.plan.refusals import RowCheck

    wrapper, probe = _opened(artifact)
    schema = wrapper.contents.feature_schema
    table = pq.read_table("data/rows.parquet").select(list(schema.names)).cast(schema.arrow())
    rows = rows_of(schema, table)
    ours = {
        NATIVE: row_scorer(wrapper, probe, native=True),
        NUMPY: row_scorer(wrapper, probe, native=False),
        GENERIC: GenericScorer(wrapper, RowCheck(schema)),
    }
    for name, scorer in ours.items():
        if not name.startswith(scorer.name):
            raise RuntimeError(f"{scorer.name} serves and not {name}: {scorer.reason}")
    checked = _check(wrapper, ours, rows)
    frame = table.to_pandas()
    times: dict[str, dict[int, tuple[float, float]]] = {}
    for size in SIZES:
        some, batch, part = rows[:size], batch_of(schema, rows[:size]), frame.iloc[:size]
        ways: dict[str, Callable[[], object]] = {
            name: partial(scorer.score, some) for name, scorer in ours.items()
        }
        ways[SCORE] = partial(wrapper.score, batch)
        ways[PREDICT] = partial(wrapper.predict, part)
        for name, taken in _timed(ways, int(turns)).items():
            times.setdefault(name, {})[size] = taken
    _, refusals = _timed({"": lambda: [ours[NATIVE].refusal(row) for row in rows[:256]]}, 10)[""]
    print(json.dumps({"times": times, "rows": checked, "refusal": refusals / 256}))


def _check(wrapper: Any, ours: dict[str, Any], rows: list[Any]) -> int:  # noqa: ANN401 -- heavy to import
    from lodestar.core.outputs import prediction_columns
    from lodestar.serving.plan.generic import batch_of

    schema = wrapper.contents.feature_schema
    for size in (1, 64, 256, 2_000):
        some = rows[:size]
        right = wrapper.score(batch_of(schema, some)).predictions
        for name, scorer in ours.items():
            made = prediction_columns(scorer.score(some).predictions)
            for column, values in right.items():
                if made[column].to_numpy().tobytes() != values.to_numpy().tobytes():
                    raise RuntimeError(f"{name} gives another {column} for {size} rows")
    return size


def _timed(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, tuple[float, float]]:
    """Median µs of each way's first call of a turn, and of those after it; the first turn warms up."""
    first: dict[str, list[float]] = {name: [] for name in ways}
    again: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, turns):
        for name, way in ways.items():
            for call in range(IN_TURN):
                began = time.perf_counter()
                way()
                taken = (time.perf_counter() - began) * 1e6
                if turn >= 0:
                    (again if call else first)[name].append(taken)
    return {name: (statistics.median(first[name]), statistics.median(again[name])) for name in ways}


def open_one(way: str, artifact: str) -> None:
    """Become able to score, and say how much memory is resident then."""
    began = time.perf_counter()
    path = Path("kept-plan")
    if way == LOADED:
        from lodestar.serving.plan import keep_plan

        wrapper, probe = _opened(artifact)
        began = time.perf_counter()
        keep_plan(wrapper, probe, path, digest=artifact, native=True)
    elif way == KEPT:
        from lodestar.artifact.contents import read_contents
        from lodestar.serving.plan import kept_scorer

        contents = read_contents(Path(artifact) / "lodestar" / "contents.json")
        began = time.perf_counter()
        kept_scorer(contents, path, digest=artifact)
    else:
        import numpy as np
        import pyarrow as pa

        sys.stderr.write(f"numpy {np.__version__}, pyarrow {pa.__version__}\n")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    taken = time.perf_counter() - began
    print(json.dumps({"rss": int(resident.split()[1]) / 1024, "plan": taken}))


def _opened(artifact: str) -> tuple[Any, Any]:
    from pyarrow import feather

    from lodestar.artifact.wrapper import PAYLOAD, load_wrapper

    wrapper, _ = load_wrapper(Path(artifact))
    return wrapper, feather.read_table(Path(artifact) / PAYLOAD / "probe_rows.arrow")


CHILDREN: dict[str, Callable[..., None]] = {"make": make, "measure": measure, "open": open_one}


if __name__ == "__main__":
    main()
