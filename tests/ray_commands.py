"""Commands on a Ray of their own, to be killed in the middle."""

import subprocess
import time
from collections.abc import Mapping

import psutil
from tests.conftest import Lodestar, ended
from tests.scoring_projects import Scoring

__all__ = ["HERE", "RAY", "family", "gone", "started", "until_kept"]

# Small parts, so that there is a middle of it.
RAY = "execution: {engine: ray}\nbatch: {chunk_rows: 16, part_rows: 100}\n"
HERE = "batch: {chunk_rows: 16, part_rows: 100}\n"


def started(
    lodestar: Lodestar,
    scoring: Scoring,
    env: str = "ray",
    variables: Mapping[str, str] | None = None,
    *,
    resume: bool = False,
) -> "subprocess.Popen[str]":
    """Begin to score on a Ray of the command's own, or go on with it."""
    words = ("batch-inference", "--run-id", scoring.runs["breast_cancer"], "--env", env)
    place = str(scoring.written("ray.parquet"))
    more = ("--resume",) if resume else ()
    return lodestar.start(*words, "--output", place, *more, cwd=scoring.project, env=variables)


def until_kept(scoring: Scoring, command: "subprocess.Popen[str]", count: int) -> None:
    """Wait until so many parts are kept."""
    while len(scoring.kept()) < count:
        assert command.poll() is None, ended(command)
        time.sleep(0.02)


def family(command: "subprocess.Popen[str]") -> list[psutil.Process]:
    """All that a command has started."""
    return psutil.Process(command.pid).children(recursive=True)


def gone(processes: list[psutil.Process], within: float = 120) -> bool:
    """Ray's agents look every now and then whether they are still needed."""
    _, alive = psutil.wait_procs(processes, timeout=within)
    return not alive
