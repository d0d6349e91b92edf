"""The rendered Dockerfile, run for real in a clean root directory: built, started, asked, ended."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.clean_root import Container, Image, container, debian, why_not
from tests.conftest import Lodestar, Trained
from tests.deploying import IMAGE, KEY, SECRETS, VARIABLES, deployable
from tests.dockerfiles import build

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

OTHERS_MAY_NOT_READ = ("sh", "-c", 'umask 077; exec "$@"', "sh")
ASK = """
import json, sys, urllib.error, urllib.request as web
path, key = sys.argv[1:]
headers = {"content-type": "application/json", "x-api-key": key}
body = sys.stdin.buffer.read() or None
try:
    with web.urlopen(web.Request("http://127.0.0.1:8000" + path, body, headers), timeout=20) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


@pytest.fixture(scope="module")
def rendered(
    trained: Callable[..., Trained],
    lodestar: Lodestar,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    run = deployable(trained)
    folder = tmp_path_factory.mktemp("rendered") / "compose"
    lodestar(
        *("deploy", "render", "compose", "--run-id", run.run_id, "--image", IMAGE),
        *("--output", folder),
        cwd=run.project,
        env=VARIABLES,
        under=OTHERS_MAY_NOT_READ,
    ).succeeded()
    return folder / "image"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return debian(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def image(rendered: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    own = Path("/etc/pip.conf")
    secrets = {"pip": own} if own.is_file() else {}
    return build(rendered / "Dockerfile", base, tmp_path_factory.mktemp("built"), secrets=secrets)


@pytest.fixture(scope="module")
def running(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with container(image, tmp_path_factory.mktemp("run"), SECRETS) as started:
        started.wait_healthy()
        yield started


def ask(
    running: Container, path: str, *, key: str = KEY, body: object = None
) -> tuple[int, object]:
    text = "" if body is None else json.dumps(body)
    done = running.inside(["python", "-c", ASK, path, key], text=text)
    assert done.returncode == 0, done.stderr
    status, answer = json.loads(done.stdout)
    return status, answer


def rows_of(run: Trained, count: int) -> list[dict[str, object]]:
    table = pq.read_table(run.project / "data/breast_cancer.parquet").drop_columns(["diagnosis"])
    rows: list[dict[str, object]] = table.slice(0, count).to_pylist()
    return rows


def test_the_image_holds_no_installer_no_compiler_and_compiled_modules(image: Image) -> None:
    assert image.path("/opt/lodestar/bin/lodestar") is not None
    for name in ("/opt/lodestar/bin/pip", "/usr/bin/gcc", "/usr/bin/cc", "/build/requirements.txt"):
        assert image.path(name) is None, name
    modules = image.path("/opt/lodestar/lib/python3.11/site-packages/lodestar")
    assert modules is not None
    assert list(modules.glob("__pycache__/errors.*.pyc"))


def test_a_container_without_network_answers_as_batch_scoring_did(
    running: Container, trained: Callable[..., Trained], lodestar: Lodestar, tmp_path: Path
) -> None:
    run = deployable(trained)
    assert ask(running, "/health/ready")[0] == 200
    output = run.project / "outbox" / tmp_path.name / "predictions.parquet"
    output.parent.mkdir(parents=True)
    lodestar(
        "batch-inference", "--run-id", run.run_id, "--output", output, cwd=run.project
    ).succeeded()
    scored = pq.read_table(output).to_pylist()[:20]
    for row, expected in zip(rows_of(run, 20), scored, strict=True):
        status, answer = ask(running, "/predict", body=row)
        assert status == 200, answer
        assert isinstance(answer, dict)
        assert answer["run_id"] == run.run_id
        assert answer["prediction"] == expected["prediction"]
        assert answer["probabilities"]["malignant"] == expected["probability_malignant"]


def test_nobody_without_a_key_is_answered(
    running: Container, trained: Callable[..., Trained]
) -> None:
    row = rows_of(deployable(trained), 1)[0]
    assert ask(running, "/predict", key="another", body=row)[0] == 401


def test_it_runs_as_its_user_without_privileges_and_can_write_nowhere_but_in_tmp(
    running: Container,
) -> None:
    status = Path(f"/proc/{running.pid}/status").read_text(encoding="ascii")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["10001"] * 4
    assert facts["NoNewPrivs"] == "1"
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    for place in ("/srv/lodestar", "/opt/lodestar", "/etc", "/srv/lodestar/.lodestar/plans"):
        refused = running.inside(["touch", f"{place}/written"])
        assert refused.returncode != 0, place
        assert "Read-only file system" in refused.stderr
    assert running.inside(["touch", "/tmp/written"]).returncode == 0  # noqa: S108 -- the container's own


def test_its_rows_are_scored_by_the_plan_that_the_build_proved(running: Container) -> None:
    status, metadata = ask(running, "/metadata")
    assert status == 200
    assert '"native"' in json.dumps(metadata)
    log = running.said()
    assert "Proving" not in log


def test_sigterm_drains_and_ends_it_well(
    image: Image, tmp_path: Path, trained: Callable[..., Trained]
) -> None:
    with container(image, tmp_path, SECRETS) as started:
        started.wait_healthy()
        assert ask(started, "/predict", body=rows_of(deployable(trained), 1)[0])[0] == 200
        assert started.stop() == 0, started.said()


def test_without_its_secret_it_says_which_variable_is_missing(image: Image, tmp_path: Path) -> None:
    with container(image, tmp_path, {}) as started:
        assert started.process.wait(60) == 2
        assert "LODESTAR_API_KEY_SHA256 is not set" in started.said()


def test_an_artifact_that_was_tampered_with_makes_no_image(
    rendered: Path, base: Path, image: Image, tmp_path: Path
) -> None:
    """The build's last step, in the image that is there, on a changed artifact."""
    (baked,) = (rendered / "project/.lodestar/baked").glob("*.json")
    digest = json.loads(baked.read_text(encoding="utf-8"))["digest"]
    file = f"/srv/lodestar/.lodestar/baked/{digest}/lodestar/components/preprocessor.json"
    dockerfile = tmp_path / "Dockerfile"
    prove = (
        f'RUN ["/opt/lodestar/bin/python", "-P", "-m", "lodestar.serving.prove", "{baked.stem}"]'
    )
    steps = ("FROM base", "WORKDIR /srv/lodestar", f"RUN echo >> {file}", prove)
    dockerfile.write_text("\n".join(steps), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"preprocessor\.json"):
        build(dockerfile, base, tmp_path / "built", secrets={}, known={"base": image})
