"""Serving: entity keys → 9 features in 4 namespaces from Redis → scaler, one-hot, 300 trees → answer.

`lodestar serve-api` against the FastAPI + Feast + pandas app that everyone writes, MLflow's server, and
servers that answer a constant; with `--peers` also LitServe and MLServer, which batch, each installed
into a temporary virtual environment, and LitServe with our core inside. Each server has one processor
and one worker; what asks it runs on the other, beside the Redis that all of them read. Before a figure
is printed, 500 answers of every way are held against a batch, bit by bit, one at a time and 64 at once.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from load import Load
from measure import (
    LODESTAR,
    ROOT,
    compile_bytecode,
    end_tidily,
    print_machine,
    print_table,
    print_verdict,
    run,
    workspace,
)
from serving_peers import peer_python
from serving_process import (
    LOAD_CORE,
    SERVER_CORE,
    Memory,
    Server,
    Way,
    fetch,
    measure,
    pinned,
    started,
)

from lodestar.infra.endpoint import Endpoint, free_port
from lodestar.infra.redis_server import RedisServer

CONCURRENCY = (1, 8, 64)
OURS, NUMPY = "lodestar serve-api", "the same, serving.native: false"
FEAST, MLFLOW = "FastAPI + Feast + pandas", "mlflow models serve, features sent along"
FRAMEWORK, ASGI = "a constant, FastAPI", "a constant, bare ASGI"
LIT, ML, LIT_CORE = "LitServe, batching", "MLServer, batching", "LitServe with our core inside"
EXPECTED = "outputs/expected.parquet"
PACKAGES = ("litserve", "mlserver")
BATCHING = (LIT, ML)
RECIPE = """\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters: {n_estimators: 300, max_depth: 6, learning_rate: 0.1}
loader:
  source_uri: recipes/sessions.sql
augmenter:
  type: feature_store
  features:
    - {feature_namespace: user_demographics, features: [age, country_code]}
    - {feature_namespace: user_purchase_summary, features: [ltv, total_purchase_count]}
    - {feature_namespace: product_details, features: [price, category, brand]}
    - {feature_namespace: session_summary, features: [time_on_page_seconds, click_count]}
preprocessor:
  name: simple_scaler
  params: {exclude_cols: [user_id, product_id, session_id, event_timestamp]}
data_interface:
  task_type: classification
  target_col: outcome
  entity_keys: [user_id, product_id, session_id]
"""
SQL = "SELECT user_id, product_id, session_id, event_timestamp, outcome FROM sessions\n"
BENCH = """\
environment: {augmenter: feature_store, serving: allowed}
feature_store:
  offline: files
  redis: {uri: "${LODESTAR_REDIS_URI}"}
"""


@dataclass(frozen=True)
class Round:
    """One start of one way: seconds to be ready, to the first answer, of processor time; memory.

    By concurrency, `loads` is what came of it, and `cpu` what a request cost the server in µs of
    processor time: what else runs on the machine moves that least.
    """

    ready: float
    first_answer: float
    start_cpu: float
    loads: Mapping[int, Load]
    cpu: Mapping[int, float]
    memory: Memory


def main() -> None:
    """Prepare, check, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="one round of a second each")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    options.add_argument(
        "--peers", nargs="*", choices=PACKAGES, help="batching servers; all of them"
    )
    options.add_argument("--only", nargs="+", help="ways whose names have one of these words")
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        import serving_project

        serving_project.CHILDREN[given.child[0]](*given.child[1:])
        return
    end_tidily()
    print_machine()
    compile_bytecode()
    rounds, seconds = (1, 1.0) if given.quick else (given.rounds, given.seconds)
    peers = PACKAGES if given.peers == [] else given.peers or ()
    with workspace() as folder, _redis(folder) as redis_uri:
        ways = _ways(folder, _prepared(folder, redis_uri), redis_uri, peers)
        if given.only:
            ways = [way for way in ways if any(word in way.name for word in given.only)]
        first = _check(ways, folder)
        _report(_measured(ways, folder, rounds, seconds), first)


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """A Redis on the load generator's processor."""
    server = RedisServer(folder, Endpoint.fresh())
    try:
        with pinned(LOAD_CORE):
            server.start()
        yield server.uri.get_secret_value()
    finally:
        server.stop()


def _prepared(folder: Path, redis_uri: str) -> str:
    """Make the project, train it in LOCAL, score its batch, fill Redis; returns the run's id."""
    sys.stderr.write("making data, training, filling Redis\n")
    (folder / "recipes" / "offer.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "recipes" / "sessions.sql").write_text(SQL, encoding="utf-8")
    for name, more in (("bench", ""), ("bench_numpy", "serving: {native: false}\n")):
        (folder / "config" / f"{name}.yaml").write_text(BENCH + more, encoding="utf-8")
    (folder / "features").mkdir()
    for path in (ROOT / "features").glob("*.yaml"):
        # The values are as old as the script, whenever it runs.
        text = path.read_text(encoding="utf-8").replace("ttl: 1d", "ttl: 36500d")
        text = text.replace("ttl: 3650d", "ttl: 36500d")
        (folder / "features" / path.name).write_text(text, encoding="utf-8")
    _child(folder, "make")
    trained = run([LODESTAR, "train", "-r", "offer", "--json"], folder).stdout
    run_id = str(json.loads(trained)["run_id"])
    score = [
        LODESTAR,
        "batch-inference",
        "--run-id",
        run_id,
        "--output",
        "outputs/expected.parquet",
    ]
    run(score, folder)
    _child(folder, "train_peer")
    _child(folder, "fill", redis_uri)
    return run_id


def _child(folder: Path, *words: str) -> str:
    return run([sys.executable, __file__, "--child", *words], folder).stdout


def _ways(folder: Path, run_id: str, redis_uri: str, packages: Sequence[str]) -> list[Way]:
    serve = (LODESTAR, "serve-api", "--run-id", run_id, "--host", "127.0.0.1", "--port", "{port}")
    variables = {"APP_ENV": "bench", "LODESTAR_REDIS_URI": redis_uri}
    ours = Way(
        OURS,
        serve,
        ready="/health/ready",
        expected=EXPECTED,
        environment=variables,
    )
    mlflow = (str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager")
    model = ("local", "-m", f"runs:/{run_id}/model", "-h", "127.0.0.1", "-p", "{port}", "-w", "1")
    ways = [
        ours,
        replace(ours, name=NUMPY, environment=variables | {"APP_ENV": "bench_numpy"}),
        _peer(FEAST, sys.executable, "fastapi_feast", expected="peer_expected.parquet"),
        Way(
            MLFLOW,
            (*mlflow, *model),
            path="/invocations",
            bodies="frame",
            marker="predictions",
            expected=EXPECTED,
            kind="mlflow",
            environment={
                "MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db",
                "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # its uvicorn
            },
        ),
        _peer(FRAMEWORK, sys.executable, "fastapi_constant"),
        _peer(ASGI, sys.executable, "asgi_constant"),
    ]
    for package in packages:
        sys.stderr.write(f"installing {package} into a temporary virtual environment\n")
        python = peer_python(folder, package)
        if package == "litserve":
            ways.append(_peer(LIT, python, "litserve_feast", expected="peer_expected.parquet"))
            core = _peer(LIT_CORE, python, "litserve_core", run_id, expected=ours.expected)
            ways.append(replace(core, environment=variables))
        else:
            way = _peer(ML, python, "mlserver_feast", expected="peer_expected.parquet")
            ways.append(replace(way, path="/v2/models/offer/infer", bodies="v2", kind="v2"))
    return ways


def _peer(name: str, python: str, app: str, *words: str, expected: str = "") -> Way:
    script = str(Path(__file__).with_name("serving_peers.py"))
    return Way(name, (python, script, app, "{port}", *words), expected=expected)


def _check(ways: Sequence[Way], folder: Path) -> dict[str, float]:
    """A difference, however small, ends the benchmark; seconds until ready at the very first start."""
    first = {}
    for way in ways:
        if not way.expected:
            continue
        sys.stderr.write(f"checking {way.name}\n")
        with started(way, free_port(), folder) as server:
            first[way.name] = server.ready
            for concurrency in (1, 64):
                out = folder / "answers.jsonl"
                fetch(way, server, folder, concurrency, out)
                bodies = f"{way.bodies}_checked.jsonl"
                rows = _child(folder, "compare", way.expected, bodies, str(out), way.kind).strip()
        batch = "our batch" if way.expected == EXPECTED else "its own pipeline's"
        print(f"  0 of {rows} answers differ from {batch}, bit by bit: {way.name}", flush=True)
    return first


def _measured(
    ways: Sequence[Way], folder: Path, rounds: int, seconds: float
) -> dict[str, list[Round]]:
    """Start, ask and end every way once per round, so that a slow minute hits them all alike."""
    found: dict[str, list[Round]] = {way.name: [] for way in ways}
    for turn in range(rounds):
        for way in ways:
            with started(way, free_port(), folder) as server:
                one = _round(way, server, folder, seconds)
            found[way.name].append(one)
            rates = ", ".join(f"{load.rate:,.0f}" for load in one.loads.values())
            note = f"ready {one.ready:.1f} s, {rates} requests/s, {one.memory.tree:.0f} MB"
            sys.stderr.write(f"  round {turn + 1} of {rounds}: {way.name}: {note}\n")
    return found


def _round(way: Way, server: Server, folder: Path, seconds: float) -> Round:
    loads, cpu = {}, {}
    for concurrency in CONCURRENCY:
        before = server.cpu()
        load = measure(way, server, folder, concurrency, seconds)
        loads[concurrency] = load
        cpu[concurrency] = (server.cpu() - before) / load.requests * 1e6
        if load.failures:
            share = load.failures / (load.failures + load.answers)
            said = f"{way.name} at {concurrency}: {share:.1%} failed, first {load.first_failure!r}"
            if way.name in (OURS, NUMPY):
                raise RuntimeError(said)
            print(f"  {said}")
    return Round(server.ready, server.first_answer, server.start_cpu, loads, cpu, server.memory())


def _report(found: Mapping[str, Sequence[Round]], first: Mapping[str, float]) -> None:
    def middle(name: str, figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(one) for one in found[name])

    rounds = len(next(iter(found.values())))
    _print_rates(found, middle, rounds)
    _print_start(found, middle)
    print("\nTargets")
    _print_targets(found, middle)
    if OURS in found:
        seen = first[OURS]
        print_verdict(f"{OURS}: ready, the run's very first start", seen, 4, unit=" s", least=False)
    highest = max(
        (load.busy, name)
        for name, every in found.items()
        for one in every
        for load in one.loads.values()
    )
    print(
        f"\n  the load generator was busy {highest[0]:.0%} of its time at most ({highest[1]}); "
        f"servers on processor {SERVER_CORE}, load and Redis on {LOAD_CORE}"
    )


Middle = Callable[[str, Callable[[Round], float]], float]


def _print_rates(found: Mapping[str, Sequence[Round]], middle: Middle, rounds: int) -> None:
    def rate(name: str, at: int) -> str:
        return f"{middle(name, lambda one: one.loads[at].rate):,.0f}"

    def latency(name: str, at: int) -> str:
        p50 = middle(name, lambda one: one.loads[at].p50)
        p99 = middle(name, lambda one: one.loads[at].p99)
        return f"{p50:,.2f} / {p99:,.2f}"

    def cost(name: str, at: int) -> str:
        return f"{middle(name, lambda one: one.cpu[at]):,.0f}"

    print_table(
        f"Requests/s, and p50 / p99 in ms, by concurrency: medians of {rounds}",
        (
            "way",
            *(f"{at}" for at in CONCURRENCY),
            *(f"ms at {at}" for at in CONCURRENCY),
            "CPU µs at 1",
            "at 64",
        ),
        [
            (
                name,
                *(rate(name, at) for at in CONCURRENCY),
                *(latency(name, at) for at in CONCURRENCY),
                *(cost(name, at) for at in (1, 64)),
            )
            for name in found
        ],
    )


def _print_start(found: Mapping[str, Sequence[Round]], middle: Middle) -> None:
    figures: Sequence[tuple[Callable[[Round], float], str]] = (
        (lambda one: one.ready, ".2f"),
        (lambda one: one.first_answer, ".2f"),
        (lambda one: one.start_cpu, ".2f"),
        (lambda one: one.memory.main, ",.0f"),
        (lambda one: one.memory.tree, ",.0f"),
        (lambda one: one.memory.proportional, ",.0f"),
    )
    print_table(
        "From the process's start, and memory after the load",
        ("way", "ready s", "first 200 s", "CPU s", "RSS MB, main", "RSS MB, all", "PSS MB, all"),
        [
            (name, *(format(middle(name, figure), form) for figure, form in figures))
            for name in found
        ],
    )


def _print_targets(found: Mapping[str, Sequence[Round]], middle: Middle) -> None:
    def at_64(ours: str, peer: str, target: float) -> None:
        ratio = rate(ours) / rate(peer)
        print_verdict(f"{ours}: requests/s at 64 ÷ {peer}", ratio, target, least=True)
        costs = [middle(name, lambda one: one.cpu[64]) for name in (peer, ours)]
        print(f"          by the server's processor time per request: {costs[0] / costs[1]:,.1f}×")

    def rate(name: str) -> float:
        return middle(name, lambda one: one.loads[64].rate)

    for ours in (OURS, NUMPY):
        if ours not in found:
            continue
        peers = [name for name in BATCHING if name in found]
        if FEAST in found:
            at_64(ours, FEAST, 80)
            p50 = middle(FEAST, lambda one: one.loads[1].p50)
            ratio = p50 / middle(ours, lambda one: one.loads[1].p50)
            print_verdict(f"{ours}: p50 at 1, {FEAST} ÷ ours", ratio, 12, least=True)
        if peers:
            at_64(ours, max(peers, key=rate), 10)
        if FRAMEWORK in found:
            at_64(ours, FRAMEWORK, 1.2)
        p99 = middle(ours, lambda one: one.loads[1].p99)
        print_verdict(f"{ours}: p99 at 1", p99, 10, unit=" ms", least=False)
        held = middle(ours, lambda one: one.memory.tree)
        print_verdict(f"{ours}: memory", held, 250, unit=" MB", least=False)
        ready = middle(ours, lambda one: one.ready)
        print_verdict(f"{ours}: ready", ready, 4, unit=" s", least=False)


if __name__ == "__main__":
    main()
