"""From a run to files: which run it is, what goes into the image, what is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, Trained, copy_of, digests, edited
from tests.deploying import CONFIG, ECR, ENV, IMAGE, SECRETS, SETTINGS, loaded
from tests.faults.test_secrets import hits
from tests.served_projects import served_run, write_served_config
from tests.tracking import MLFLOWS_WARNINGS, saved_copy, store_of

from lodestar.artifact.local_runs import BAKED
from lodestar.artifact.manifest import verify
from lodestar.deploy.targets import TARGETS
from lodestar.errors import ArtifactError, LodestarError, NotAllowedError, SettingsError, UsageError
from lodestar.interface.progress import Silent
from lodestar.pipelines.deploy import Asked, Rendered, render
from lodestar.pipelines.promotion import promote
from lodestar.serving.prove import prove
from lodestar.settings.loading import Environment, load_config

pytestmark = MLFLOWS_WARNINGS

# A lock that is there already: making one asks an index.
LOCK = ROOT / "requirements" / "dev.txt"


@dataclass(frozen=True)
class Place:
    """A project of its own with one run, and an environment that may be deployed."""

    project: Path
    run_id: str
    digest: str

    def environment(self, name: str = ENV) -> Environment:
        return load_config(self.project, name, variables=SECRETS)

    def render(self, reference: str = "", **asked: Any) -> Rendered:  # noqa: ANN401 -- fields of Asked
        options = {"target": "kubernetes", "image": IMAGE, "requirements": LOCK, **asked}
        environment = self.environment(options.pop("environment", ENV))
        return render(environment, reference or self.run_id, Asked(**options), tell=Silent())


@pytest.fixture(scope="module")
def place(
    trained: Callable[..., Trained], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    run = trained("breast_cancer")
    project = copy_of(run.project, tmp_path_factory.mktemp("deploy") / "project")
    write_served_config(project, ENV, CONFIG)
    saved = saved_copy(
        load_config(project, ENV, variables=SECRETS), run.artifact, recipe="breast_cancer"
    )
    yield Place(project, saved.run_id, saved.digest)
    shutil.rmtree(project)


def asked_for(target: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "target": target,
        "settings": SETTINGS[target],
        "image": ECR if target == "lambda" else IMAGE,
        "output": tmp_path / target,
    }


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_run_makes_the_same_bytes_without_any_secret(
    place: Place, target: str, tmp_path: Path
) -> None:
    first = place.render(**asked_for(target, tmp_path / "one"))
    second = place.render(**asked_for(target, tmp_path / "two"))
    assert digests(first.written.folder) == digests(second.written.folder)
    assert first.service.secrets == tuple(SECRETS)
    assert hits(tmp_path, *SECRETS.values(), str(place.project)) == []
    assert {"image/Dockerfile", "image/.dockerignore"} < set(first.written.files)
    for name in first.written.files:
        if "/" not in name:
            assert loaded((first.written.folder / name).read_text(encoding="utf-8"))
    build, push, apply = first.commands
    assert build == f"docker build --tag {first.service.image} {tmp_path}/one/{target}/image"
    assert push == f"docker push {first.service.image}"
    assert str(first.written.folder) in apply


def test_the_image_gets_the_artifact_as_it_was_recorded(place: Place, tmp_path: Path) -> None:
    done = place.render(output=tmp_path / "out")
    project = tmp_path / "out" / "image" / "project"
    verify(project / BAKED / place.digest, expected=place.digest)
    known = json.loads((project / BAKED / f"{place.run_id}.json").read_text(encoding="utf-8"))
    assert known["folder"] == f"/srv/lodestar/{BAKED}/{place.digest}"
    assert sorted(path.name for path in (project / "config").iterdir()) == [
        "base.yaml",
        f"{ENV}.yaml",
    ]
    assert sorted(path.name for path in project.iterdir()) == [".lodestar", "config"]
    dockerfile = (tmp_path / "out/image/Dockerfile").read_text(encoding="utf-8")
    assert f'"serve-api", "--run-id", "{place.run_id}", "--host", "0.0.0.0"' in dockerfile
    assert f'lodestar.artifact-digest="{place.digest}"' in dockerfile
    assert done.service.digest == place.digest


def test_a_project_of_the_image_alone_serves_its_run_without_any_store(
    place: Place, tmp_path: Path
) -> None:
    """What the container does, here without one: the config's tracking server does not exist."""
    place.render(output=tmp_path / "out")
    project = shutil.copytree(tmp_path / "out/image/project", tmp_path / "project")
    known = project / BAKED / f"{place.run_id}.json"
    edited(known, "/srv/lodestar", str(project))
    nowhere = "environment: {serving: allowed}\nmlflow: {tracking_uri: 'http://127.0.0.1:9'}\n"
    variables = write_served_config(project, "nowhere", nowhere)
    assert prove(project, place.run_id) == "native"
    plans = digests(project / ".lodestar/plans")
    environment = load_config(project, "nowhere", variables={})
    for reference in (place.run_id, place.digest):
        with store_of(environment).opened(reference) as run:
            assert run.folder == project / BAKED / place.digest
    with served_run(project, place.run_id, env=variables) as server:
        assert server.get("/health/ready").status_code == 200
        assert "Proving" not in server.says()
    assert digests(project / ".lodestar/plans") == plans
    assert not (project / "mlruns").exists()


def test_a_short_reference_is_not_taken_for_a_baked_run(place: Place, tmp_path: Path) -> None:
    place.render(output=tmp_path / "out")
    project = tmp_path / "out/image/project"
    edited(project / BAKED / f"{place.run_id}.json", "/srv/lodestar", str(project))
    write_served_config(project, "nowhere", "mlflow: {tracking_uri: 'http://127.0.0.1:9'}\n")
    environment = load_config(project, "nowhere", variables={})
    with (
        pytest.raises(LodestarError, match="does not answer"),
        store_of(environment).opened(place.run_id[:8]),
    ):
        pass


def test_proving_a_run_that_was_not_baked_in_or_was_tampered_with(
    place: Place, tmp_path: Path
) -> None:
    place.render(output=tmp_path / "out")
    project = tmp_path / "out/image/project"
    with pytest.raises(ArtifactError, match="no artifact of run 0000 was baked in"):
        prove(project, "0000")
    edited(project / BAKED / f"{place.run_id}.json", "/srv/lodestar", str(project))
    contents = project / BAKED / place.digest / "lodestar/contents.json"
    contents.write_bytes(contents.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"contents\.json"):
        prove(project, place.run_id)


def test_an_alias_is_written_as_the_run_that_it_was(place: Place, tmp_path: Path) -> None:
    promote(place.environment(), place.run_id, "champion", force=False, tell=Silent())
    done = place.render("champion", output=tmp_path / "out")
    assert done.service.run_id == place.run_id
    text = (tmp_path / "out/deployment.yaml").read_text(encoding="utf-8")
    assert place.run_id in text
    assert "champion" not in text


def test_options_reach_the_files(place: Place, tmp_path: Path) -> None:
    place.render(
        output=tmp_path / "out",
        name="judge",
        least=3,
        most=7,
        cpu="500m",
        memory="768Mi",
        variables=("A=1", "LODESTAR_MORE"),
        settings=("namespace=shop", "secret=kept"),
        base="python:3.11-slim@sha256:" + "0" * 64,
    )
    documents = {
        path.stem: loaded(path.read_text(encoding="utf-8"))
        for path in (tmp_path / "out").glob("*.yaml")
    }
    assert {item["metadata"]["name"] for item in documents.values()} == {"judge"}
    assert {item["metadata"]["namespace"] for item in documents.values()} == {"shop"}
    scaler = documents["horizontalpodautoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 7)
    (container,) = documents["deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "768Mi"}
    assert container["env"] == [
        {"name": "A", "value": "1"},
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": "kept", "key": name}}}
            for name in ("LODESTAR_API_KEY_SHA256", "LODESTAR_MORE")
        ),
    ]
    assert f"FROM python:3.11-slim@sha256:{'0' * 64} AS base" in (
        tmp_path / "out/image/Dockerfile"
    ).read_text(encoding="utf-8")


def test_folders_that_serving_writes_to_are_writable(place: Place, tmp_path: Path) -> None:
    write_served_config(
        place.project, "logged", f"{CONFIG}  prediction_log: {{folder: logs/predictions}}\n"
    )
    place.render(environment="logged", output=tmp_path / "out")
    spec = loaded((tmp_path / "out/deployment.yaml").read_text(encoding="utf-8"))["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert paths == ["/tmp", "/srv/lodestar/logs/predictions"]  # noqa: S108 -- the container's own
    dockerfile = (tmp_path / "out/image/Dockerfile").read_text(encoding="utf-8")
    assert "install -d -o 10001 -g 10001 /srv/lodestar/logs/predictions" in dockerfile
    assert 'VOLUME ["/tmp", "/srv/lodestar/logs/predictions"]' in dockerfile


LITERAL = "redis://:hunter2@redis.example.com:6379/0"
STORE = "feature_store: {{offline: files, redis: {{{}}}}}\n"


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        ("environment: {serving: blocked}\n", NotAllowedError, "cannot be served"),
        ("environment: {serving: allowed}\n", NotAllowedError, "nobody has to say who they are"),
        (CONFIG + STORE.format(f"uri: '{LITERAL}'"), SettingsError, "a secret stands in the file"),
        (
            CONFIG + STORE.format("uri: 'redis://host:6379/0', ca_file: /etc/ca.pem"),
            UsageError,
            "/etc/ca.pem lies outside the project",
        ),
        (
            CONFIG + STORE.format("uri: 'redis://host:6379/0', ca_file: config/ca.pem"),
            UsageError,
            "config/ca.pem is no file of the project",
        ),
        (
            CONFIG + "feature_store: {feast: {repository: team}}\n",
            UsageError,
            "a team's own Feast repository",
        ),
        (
            CONFIG + "  prediction_log: {folder: ../logs}\n",
            UsageError,
            "../logs lies outside the project",
        ),
    ],
)
def test_configs_that_cannot_be_deployed(
    place: Place, tmp_path: Path, config: str, kind: type[LodestarError], words: str
) -> None:
    write_served_config(place.project, "other", config)
    lock = None if "feast" in config else LOCK
    with pytest.raises(kind, match=words) as raised:
        place.render(environment="other", output=tmp_path / "out", requirements=lock)
    assert "hunter2" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("reference", "asked", "words"),
    [
        ("", {"target": "nomad"}, "there is no target 'nomad'"),
        ("", {"image": None}, "--image is missing"),
        ("", {"image": "shop/api:latest"}, "means another image"),
        ("", {"target": "ecs"}, "ecs needs to be told more"),
        ("", {"cpu": "many"}, "is no number of processors"),
        ("", {"name": "Über"}, "is no name of a service"),
        ("", {"base": "a b"}, "--base-image"),
        ("", {"variables": ("LODESTAR_API_KEY_SHA256=x",)}, "for all to read"),
        ("", {"requirements": Path("/nowhere.txt")}, "cannot be read"),
        ("0" * 32, {}, "is no run of this project"),
        ("../x", {}, "is no run id and no alias"),
        ("challenger", {}, "challenger"),
    ],
)
def test_what_is_asked_for_wrongly(
    place: Place, tmp_path: Path, reference: str, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        place.render(reference, **{"output": tmp_path / "out", **asked})
    assert not (tmp_path / "out").exists()


def test_a_rendering_of_another_run_takes_the_place_of_the_last(
    place: Place, tmp_path: Path
) -> None:
    place.render(output=tmp_path)
    before = set(digests(tmp_path))
    environment = place.environment()
    with store_of(environment).opened(place.run_id) as run:
        other = saved_copy(environment, run.folder, recipe="breast_cancer")
    assert place.render(output=tmp_path).written.changed == 0
    done = place.render(other.run_id, output=tmp_path)
    assert done.written.changed > 0
    gone = before - set(digests(tmp_path))
    assert gone
    assert all(place.digest in name or place.run_id in name for name in gone)
    assert not (tmp_path / "image/project" / BAKED / place.digest).exists()


def test_without_a_lock_the_packages_that_are_not_installed_here_are_named(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "uv", None)
    with pytest.raises(UsageError, match="uv, which locks the image's packages"):
        place.render(output=tmp_path / "out", requirements=None)
