"""An artifact served by the real command, asked by real clients: it says what batch scoring says."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.browsers import Chromium
from tests.conftest import Lodestar, Trained, outbox
from tests.served_projects import SERVED, served_run, write_served_config
from tests.serving_places import Served, until

LOG = "serving: {prediction_log: {folder: logs/answers, flush_seconds: 0.2}}\n"
DRIFT = "drift: {window_seconds: 0.1}\n"
RECIPES = ("breast_cancer", "diabetes", "wine")


@pytest.fixture(scope="module")
def environment(sample_project: Path) -> Mapping[str, str]:
    return write_served_config(sample_project, "served_e2e", SERVED + LOG + DRIFT)


@pytest.fixture(scope="module")
def run(trained: Callable[..., Trained]) -> Trained:
    return trained("breast_cancer")


@pytest.fixture(scope="module")
def server(run: Trained, environment: Mapping[str, str]) -> Iterator[Served]:
    with served_run(run.project, run.run_id, env=environment) as server:
        yield server


@pytest.fixture(scope="module")
def rows(sample_project: Path) -> list[dict[str, Any]]:
    frame = pd.read_parquet(sample_project / "data" / "breast_cancer.parquet")
    found: list[dict[str, Any]] = json.loads(
        frame.drop(columns="diagnosis").to_json(orient="records", double_precision=15)
    )
    return found


def _batch(lodestar: Lodestar, run: Trained, tmp_path: Path) -> pd.DataFrame:
    place = outbox(run.project, tmp_path) / "scores.parquet"
    lodestar(
        "batch-inference", "--run-id", run.run_id, "--output", place, cwd=run.project
    ).succeeded()
    scores: pd.DataFrame = pq.read_table(place).to_pandas()
    return scores


def _of(answers: list[dict[str, Any]], label: str) -> list[np.float32]:
    return [np.float32(answer["probabilities"][label]) for answer in answers]


def _asked(server: Served, path: str, body: object) -> Any:  # noqa: ANN401 -- JSON
    with server.client() as client:
        said = client.post(path, json=body)
    assert said.status_code == 200, said.text
    return said.json()


def test_every_answer_is_bit_by_bit_what_batch_scoring_wrote(
    lodestar: Lodestar, run: Trained, server: Served, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    scores = _batch(lodestar, run, tmp_path).set_index("sample_id")
    answers = _asked(server, "/predict/batch", {"rows": rows})["rows"]
    expected = scores.loc[[row["sample_id"] for row in rows]]
    assert [answer["prediction"] for answer in answers] == expected["prediction"].tolist()
    for label in ("benign", "malignant"):
        assert _of(answers, label) == expected[f"probability_{label}"].tolist()
    alone = [_asked(server, "/predict", row) for row in rows[:20]]
    assert _of(alone, "malignant") == _of(answers[:20], "malignant")
    assert {answer["run_id"] for answer in answers} == {run.run_id}
    assert {answer["artifact_digest"] for answer in answers} == {scores["artifact_digest"].iloc[0]}


def test_the_fast_way_serves_and_says_so(server: Served, run: Trained) -> None:
    (version,) = server.get("/metadata").json()["versions"]
    assert version["scoring"] == {"way": "native", "why_not_faster": None}
    assert version["run_id"] == run.run_id
    assert version["metrics"]["roc_auc"]["value"] > 0.9
    assert [field["name"] for field in version["request"] if not field["required"]] == ["sample_id"]


def test_openapi_shows_the_fields_of_the_sql_without_the_target(server: Served) -> None:
    document = server.get("/openapi.json").json()
    request = document["components"]["schemas"]["PredictionRequest"]
    assert "diagnosis" not in request["properties"]
    assert request["properties"]["mean_radius"]["type"] == "number"
    assert {"/predict", "/predict/batch", "/explain", "/metadata", "/invocations"} <= set(
        document["paths"]
    )
    assert list(document["paths"])[:2] == ["/predict", "/predict/batch"]
    page = server.get("/docs")
    assert page.status_code == 200
    taken = re.findall(r"""(?:src|href|url) ?[=:] ?["']([^"']*)["']""", page.text)
    assert len(taken) == 4
    for path in taken:
        assert re.match(r"/[^/]", path), f"{path} is of another host"
        assert server.get(path).status_code == 200


@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_the_page_of_the_api_is_dark_where_the_browser_is(
    server: Served, chromium: Chromium, scheme: int, dark: bool
) -> None:
    opened = chromium(f"{server.address}/docs", f"--blink-settings=preferredColorScheme={scheme}")
    root = re.search(r"<html[^>]*>", opened.stdout)
    assert root is not None
    assert ("dark-mode" in root.group()) is dark
    assert "Predict one row" in opened.stdout
    assert "CONSOLE" not in opened.stderr


def test_contributions_add_up_to_the_prediction(server: Served, rows: list[dict[str, Any]]) -> None:
    said = _asked(server, "/explain", rows[0])
    answer = _asked(server, "/predict", rows[0])
    total = said["base"] + sum(said["contributions"].values())
    assert said["output"] == pytest.approx(total)
    probability = 1 / (1 + math.exp(-total))
    assert probability == pytest.approx(answer["probabilities"]["malignant"], abs=1e-5)
    assert set(said["contributions"]) == set(rows[0]) - {"sample_id"}


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # said when MLflow is imported
def test_mlflows_own_client_is_answered(server: Served, rows: list[dict[str, Any]]) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client: Any = ScoringServerClient("127.0.0.1", server.port)  # type: ignore[no-untyped-call]  # MLflow's
    client.ping()
    assert client.get_version()
    said = client.invoke(pd.DataFrame(rows[:5])).get_predictions()
    answers = _asked(server, "/predict/batch", {"rows": rows[:5]})["rows"]
    assert said["prediction"].tolist() == [answer["prediction"] for answer in answers]
    assert said["probability_malignant"].astype("float32").tolist() == _of(answers, "malignant")


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: {"dataframe_records": rows},
        lambda rows: {"instances": rows},
        lambda rows: {"inputs": {name: [row[name] for row in rows] for name in rows[0]}},
        lambda rows: {
            "dataframe_split": {
                "columns": list(rows[0]),
                "data": [list(row.values()) for row in rows],
            }
        },
    ],
)
def test_every_form_of_mlflows_protocol_says_the_same(
    server: Served,
    rows: list[dict[str, Any]],
    form: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> None:
    said = _asked(server, "/invocations", form(rows[:3]))["predictions"]
    answers = _asked(server, "/predict/batch", {"rows": rows[:3]})["rows"]
    assert [one["probability_benign"] for one in said] == [
        one["probabilities"]["benign"] for one in answers
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"inputs": {}},
        {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
        {"instances": [1]},
        {"instances": [{"mean_radius": "x"}]},
        {"dataframe_records": [], "instances": []},
    ],
)
def test_what_is_no_such_form_is_refused(server: Served, body: object) -> None:
    with server.client() as client:
        said = client.post("/invocations", json=body)
    assert (said.status_code, said.json()["status"]) == (422, 422)


def test_a_client_of_the_open_inference_protocol_is_answered(
    server: Served, rows: list[dict[str, Any]]
) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    client = InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("breast_cancer")
    shown = client.get_model_metadata("breast_cancer")
    inputs = []
    for column in shown["inputs"]:
        values = [row[column["name"]] for row in rows[:4]]
        kind = object if column["datatype"] == "BYTES" else np.float64
        tensor = InferInput(column["name"], [4], column["datatype"])
        tensor.set_data_from_numpy(np.array(values, dtype=kind), binary_data=False)
        inputs.append(tensor)
    wanted = [InferRequestedOutput("probability_malignant", binary_data=False)]
    said = client.infer("breast_cancer", inputs, outputs=wanted)
    client.close()
    answers = _asked(server, "/predict/batch", {"rows": rows[:4]})["rows"]
    found = said.as_numpy("probability_malignant").astype("float32").tolist()
    assert found == _of(answers, "malignant")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/other/infer", {"inputs": []}, 404),
        ("/v2/models/breast_cancer/infer", {"inputs": []}, 422),
        ("/v2/models/breast_cancer/infer", {"inputs": [{"name": "a"}]}, 422),
        (
            "/v2/models/breast_cancer/infer",
            {"inputs": [{"name": "a", "shape": [2], "datatype": "FP64", "data": [1]}]},
            422,
        ),
    ],
)
def test_what_is_no_inference_request_is_refused(
    server: Served, path: str, body: object, status: int
) -> None:
    with server.client() as client:
        said = client.post(path, json=body)
    assert said.status_code == status
    assert said.headers["content-type"] == "application/problem+json"


def test_the_prediction_log_has_what_was_asked_and_answered(
    server: Served, run: Trained, rows: list[dict[str, Any]]
) -> None:
    folder = run.project / "logs" / "answers" / "breast_cancer"
    with server.client() as client:
        said = client.post("/predict", json=rows[7], headers={"X-Request-ID": "logged-7"}).json()

    def found() -> list[dict[str, Any]]:
        files = [path for path in folder.rglob("*.parquet") if not path.name.startswith(".")]
        logged = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
        return [row for row in logged if row["request_id"] == "logged-7"]

    (row,) = until(found)
    assert row["prediction"] == said["prediction"]
    assert row["probability_malignant"] == said["probabilities"]["malignant"]
    assert (row["sample_id"], row["mean_radius"]) == (rows[7]["sample_id"], rows[7]["mean_radius"])
    assert (row["run_id"], row["degraded"], row["request_row"]) == (run.run_id, False, 0)


def test_drift_is_in_the_metadata_and_in_the_metrics(
    server: Served, run: Trained, rows: list[dict[str, Any]]
) -> None:
    moved = [{**row, "mean_radius": row["mean_radius"] + 9.0} for row in rows[:100]]

    def found() -> list[str]:
        _asked(server, "/predict/batch", {"rows": moved})
        (version,) = server.get("/metadata").json()["versions"]
        assert version["drift"]["watched"]
        last = version["drift"]["last_window"] or {"drifted": []}
        return [each["column"] for each in last["drifted"]]

    def moved_far() -> bool:
        """In a window of its own: the first one may have rows of other tests."""
        _asked(server, "/predict/batch", {"rows": moved})
        (line,) = (
            line
            for line in server.get("/metrics").text.splitlines()
            if line.startswith("lodestar_drift_psi{") and '"mean_radius"' in line
        )
        assert run.run_id in line
        return float(line.rpartition(" ")[2]) > 1

    assert "mean_radius" in until(found)
    until(moved_far)


@pytest.mark.parametrize("recipe", ["diabetes", "digits"])
def test_other_tasks_and_models_say_what_batch_scoring_says(
    lodestar: Lodestar,
    trained: Callable[..., Trained],
    environment: Mapping[str, str],
    tmp_path: Path,
    recipe: str,
) -> None:
    run = trained(recipe)
    scores = _batch(lodestar, run, tmp_path)
    key = scores.columns[0]
    with served_run(run.project, run.run_id, env=environment) as server:
        (version,) = server.get("/metadata").json()["versions"]
        asked = _rows_of(run, recipe, {field["name"] for field in version["request"]})[:100]
        answers = _asked(server, "/predict/batch", {"rows": asked})["rows"]
    expected = scores.set_index(key).loc[[row[key] for row in asked], "prediction"]
    assert [answer["prediction"] for answer in answers] == expected.tolist()


def _rows_of(run: Trained, recipe: str, names: set[str]) -> list[dict[str, Any]]:
    """The rows that the recipe's SQL selects, as a client would send them."""
    import duckdb

    text = (run.project / "recipes" / "sql" / "loaders" / f"{recipe}.sql").read_text()
    with duckdb.connect() as connection:
        for file in (run.project / "data").glob("*.parquet"):
            connection.read_parquet(str(file)).create_view(file.stem)
        frame = connection.execute(text).df()
    kept = frame[[name for name in frame.columns if name in names]]
    found: list[dict[str, Any]] = json.loads(kept.to_json(orient="records", double_precision=15))
    return found


def test_a_run_that_does_not_exist_is_refused(
    lodestar: Lodestar, sample_project: Path, environment: Mapping[str, str], run: Trained
) -> None:
    assert run.run_id
    lodestar("serve-api", "--run-id", "0" * 32, cwd=sample_project, env=environment).refused(
        2, "no run of this project"
    )


def test_a_tampered_artifact_is_refused(
    lodestar: Lodestar,
    project: Path,
) -> None:
    done = lodestar("train", "-r", "breast_cancer", "--json", cwd=project).succeeded()
    model = project / done.json["artifact_uri"] / "lodestar" / "components" / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    env = write_served_config(project, "served")
    lodestar("serve-api", "--run-id", done.json["run_id"], cwd=project, env=env).refused(
        6, "model.ubj"
    )


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--host", "0.0.0.0"), 5, "authentication"),  # noqa: S104 -- it must be refused
        (("--traffic", "10"), 2, "challenger"),
        (("--challenger-run-id", "abcd1234", "--traffic", "0"), 2, "percent"),
    ],
)
def test_what_cannot_be_served_safely_is_refused(
    lodestar: Lodestar,
    run: Trained,
    environment: Mapping[str, str],
    options: tuple[str, ...],
    code: int,
    word: str,
) -> None:
    lodestar(
        "serve-api", "--run-id", run.run_id, *options, cwd=run.project, env=environment
    ).refused(code, word)


def test_two_workers_share_the_port_and_say_the_same(
    run: Trained, environment: Mapping[str, str], rows: list[dict[str, Any]]
) -> None:
    with served_run(run.project, run.run_id, "--workers", "2", env=environment) as server:
        said = set()
        for _ in range(20):
            with server.client() as client:
                answer = client.post("/predict", json=rows[0]).json()
                said.add((answer["prediction"], answer["probabilities"]["malignant"]))
        assert len(said) == 1
        # What any worker counted is shown by all, and counted after the client has its answer.
        name = 'lodestar_requests_total{method="POST",route="/predict",status="200"}'
        until(lambda: server.metric(name) == 20)
