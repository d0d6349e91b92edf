"""What starting the command line costs: help beside importing typer, and a check that fails fast."""

import argparse
import sys
from pathlib import Path

from measure import (
    LODESTAR,
    compile_bytecode,
    interleaved,
    median,
    print_machine,
    print_table,
    print_verdict,
    run,
    workspace,
)

BROKEN_RECIPE = """\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters:
    max_deph: 4
loader:
  source_url: data/rows.parquet
data_interface:
  task_type: clasification
  target_col: y
"""
MISSPELT_HYPERPARAMETER = BROKEN_RECIPE.replace("source_url", "source_uri").replace(
    "clasification", "classification"
)
XGBOOST = "python -c 'import xgboost'"
BARE, TYPER, HELP = "python -c pass", "python -c 'import typer'", "lodestar --help"
KEYS, NAMES = "lodestar check, wrong keys", "lodestar check, wrong hyperparameter"


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 5 if options.parse_args().quick else 21
    print_machine()
    compile_bytecode()
    with workspace() as folder:
        _measure(folder, rounds)


def _measure(folder: Path, rounds: int) -> None:
    (folder / "recipes" / "keys.yaml").write_text(BROKEN_RECIPE, encoding="utf-8")
    (folder / "recipes" / "names.yaml").write_text(MISSPELT_HYPERPARAMETER, encoding="utf-8")
    ways = {
        BARE: lambda: run([sys.executable, "-c", "pass"], folder),
        TYPER: lambda: run([sys.executable, "-c", "import typer"], folder),
        XGBOOST: lambda: run([sys.executable, "-c", "import xgboost"], folder),
        HELP: lambda: run([LODESTAR, "--help"], folder),
        KEYS: lambda: run([LODESTAR, "check", "-r", "keys"], folder, expected=2),
        NAMES: lambda: run([LODESTAR, "check", "-r", "names"], folder, expected=2),
    }
    medians = {name: median(costs) for name, costs in interleaved(ways, rounds).items()}
    typer = medians[TYPER].cpu
    print_table(
        f"Starting up, medians of {rounds} interleaved rounds",
        ("command", "CPU ms", "wall ms", "peak MB", "CPU ÷ typer"),
        [
            (
                name,
                f"{cost.cpu * 1000:.0f}",
                f"{cost.wall * 1000:.0f}",
                f"{cost.peak:.0f}",
                f"{cost.cpu / typer:.2f}",
            )
            for name, cost in medians.items()
        ],
    )
    print_verdict("CPU of --help ÷ import typer", medians[HELP].cpu / typer, 2, least=False)
    print_verdict(
        "check of a recipe with wrong keys", medians[KEYS].wall, 1, unit=" s", least=False
    )
    print_verdict(
        "check of a recipe with a wrong hyperparameter (imports xgboost)",
        medians[NAMES].wall,
        1,
        unit=" s",
        least=False,
    )


if __name__ == "__main__":
    main()
