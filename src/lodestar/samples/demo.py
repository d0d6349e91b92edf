"""`make demo`: the real commands, one after the other, and a summary of what they left."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]

RECIPE = "breast_cancer"


def main() -> None:
    """Write the sample data, train, score, evaluate; print where everything lies."""
    from lodestar.samples.project import write_sample_data

    _say("writing the sample data to data/")
    write_sample_data(Path("data"))
    search = ("--set", "config.hyperparameter_tuning.enabled=true")
    trained = _lodestar("train", "--recipe-file", RECIPE, *search)
    run = trained["run_id"]
    scored = _lodestar("batch-inference", "--run-id", run)
    evaluated = _lodestar("evaluate", "--run-id", run)
    _say("")
    _say(f"run          {run}")
    _say(f"             {trained['run_name']}")
    _say(f"search       {_search(trained['tuning'])}")
    _say(f"held out     {_metrics(trained)}")
    _say(f"evaluated    {_metrics(evaluated)}  ({evaluated['rows']} {evaluated['data']})")
    _say(f"predictions  {scored['outputs']['predictions']}  ({scored['rows']} rows)")
    _say(f"report       {trained['report']}  (open it in a browser)")
    _say("")
    _say("next, after `. .venv/bin/activate`:")
    _say(f"  lodestar train --recipe-file {RECIPE} --set model.hyperparameters.max_depth=4")
    _say("  lodestar runs list")
    _say("  lodestar init ../my-project")


def _lodestar(*words: str) -> dict[str, Any]:
    """Run one command, its progress on this terminal, its result as JSON."""
    _say(f"\n$ lodestar {' '.join(words)}")
    command = [sys.executable, "-m", "lodestar.cli", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 -- our own command
    if done.returncode:
        raise SystemExit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _metrics(result: dict[str, Any]) -> str:
    shown = ("roc_auc", "accuracy", "log_loss")
    intervals = result["intervals"]
    return "  ".join(
        f"{name} {result['metrics'][name]:.4f} ({intervals[name][0]:.4f} … {intervals[name][1]:.4f})"
        for name in shown
    )


def _search(tuning: dict[str, Any]) -> str:
    chosen = ", ".join(f"{name} {value:.4g}" for name, value in tuning["best_params"].items())
    return f"{tuning['completed']} trials complete, {tuning['pruned']} pruned; chosen: {chosen}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
