"""`lodestar deploy render` as a command."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ROOT, Lodestar, Trained
from tests.deploying import IMAGE, SECRETS, VARIABLES, deployable

LOCK = ROOT / "requirements" / "dev.txt"


@pytest.fixture(scope="module")
def run(trained: Callable[..., Trained]) -> Trained:
    return deployable(trained)


def test_a_run_becomes_files_and_three_commands(
    lodestar: Lodestar, run: Trained, tmp_path: Path
) -> None:
    command = ("deploy", "render", "kubernetes", "--run-id", run.run_id[:8], "--image", IMAGE)
    options = ("--requirements", LOCK, "--output", tmp_path / "out")
    done = lodestar(*command, *options, "--json", cwd=run.project, env=VARIABLES).succeeded()
    assert done.json["run_id"] == run.run_id
    assert done.json["secrets"] == list(SECRETS)
    assert {"deployment.yaml", "image/Dockerfile"} < set(done.json["files"])
    for name in done.json["files"]:
        assert (tmp_path / "out" / name).is_file()
    (tmp_path / "out" / "deployment.yaml").write_text("mine", encoding="utf-8")
    lodestar(*command, *options, cwd=run.project, env=VARIABLES).refused(
        2, "changed since they were rendered: deployment.yaml", "--force"
    )
    said = lodestar(*command, *options, "--force", cwd=run.project, env=VARIABLES).succeeded()
    without = {"APP_ENV": VARIABLES["APP_ENV"]}
    again = lodestar(*command, *options, "--json", cwd=run.project, env=without).succeeded()
    assert again.json["changed"] == 0
    for words in (f"docker build --tag {IMAGE}", "docker push", "kubectl apply -f", *SECRETS):
        assert words in said.stderr
    assert SECRETS["LODESTAR_API_KEY_SHA256"] not in said.stderr + said.stdout


@pytest.mark.parametrize(
    ("target", "env", "words"),
    [
        ("nomad", {}, "there is no target 'nomad'"),
        ("compose", {"APP_ENV": "none"}, "there is no environment 'none'"),
    ],
)
def test_what_there_is_not(
    lodestar: Lodestar, run: Trained, target: str, env: dict[str, str], words: str
) -> None:
    command = ("deploy", "render", target, "--run-id", run.run_id, "--image", IMAGE)
    lodestar(*command, cwd=run.project, env=env).refused(2, words)


def test_local_serves_nothing_and_says_how_to_go_on(lodestar: Lodestar, run: Trained) -> None:
    lodestar(
        *("deploy", "render", "compose", "--run-id", run.run_id, "--image", IMAGE),
        cwd=run.project,
    ).refused(5, "environment.serving is blocked in local", "lodestar infra up, then --env dev")


def test_what_is_missing_is_told_before_anything_is_looked_up(
    lodestar: Lodestar, run: Trained
) -> None:
    lodestar("deploy", "render", "compose", "--run-id", "0000", cwd=run.project).refused(
        2, "--image is missing", "for example --image registry.example.com"
    )


def test_help_names_the_targets_and_every_option(lodestar: Lodestar, tmp_path: Path) -> None:
    text = lodestar("deploy", "render", "--help", cwd=tmp_path).succeeded().stdout
    for word in ("kubernetes", "container-instances", "--image", "--variable", "--set", "--force"):
        assert word in text
