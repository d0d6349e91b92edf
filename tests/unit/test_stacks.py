"""Every stack's config loads with its variables set, lists them all, and holds no secret."""

import re
from collections.abc import Iterator
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from lodestar.deploy.targets import TARGETS
from lodestar.errors import SettingsError, UsageError
from lodestar.samples.project import create_project
from lodestar.samples.stacks import STACKS, Stack, stack_named
from lodestar.settings.config import Config
from lodestar.settings.loading import load_config
from lodestar.settings.yaml_source import VARIABLE

BLUEPRINT = {
    *("gcp_native", "aws_native", "multi_cloud"),
    *("on_premises", "azure_native", "local_development"),
}
WITH_FILES = [stack for stack in STACKS.values() if stack.folder is not None]
CANARY = "canary0"
# What is no free text.
GIVEN = {
    "LODESTAR_API_KEY_SHA256": "ab" * 32,
    "LODESTAR_FEAST_URI": f"postgresql://u:{CANARY}@host:5432/feast",
    "LODESTAR_REDIS_URI": f"rediss://:{CANARY}@host:6380/0",
    "LODESTAR_POSTGRES_URI": f"postgresql://u:{CANARY}@host:5432/shop",
    "LODESTAR_MLFLOW_URI": f"https://u:{CANARY}@host",
    "LODESTAR_SHARE": "/mnt/lodestar",
}


@pytest.fixture(params=WITH_FILES, ids=lambda stack: stack.name)
def stack(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.param
    return found


@pytest.fixture
def project(stack: Stack, tmp_path: Path) -> Path:
    """As much of one as a config is read from."""
    config = tmp_path / "project" / "config"
    config.mkdir(parents=True)
    base = files("lodestar.samples") / "project" / "config" / "base.yaml"
    (config / "base.yaml").write_text(base.read_text(encoding="utf-8"), encoding="utf-8")
    (config / "prod.yaml").write_text(config_text(stack), encoding="utf-8")
    return tmp_path / "project"


def config_text(stack: Stack) -> str:
    assert stack.folder is not None
    return (stack.folder / "config" / f"{stack.environment}.yaml").read_text(encoding="utf-8")


def template(stack: Stack) -> str:
    assert stack.folder is not None
    assert stack.template is not None
    return (stack.folder / stack.template).read_text(encoding="utf-8")


def read_variables(stack: Stack) -> dict[str, str | None]:
    """Name → default of every variable that its config reads; comments count for nothing."""
    text = re.sub(r"(^|\s)#.*", "", config_text(stack))
    return {name: default or None for name, default in VARIABLE.findall(text)}


def values_of(section: BaseModel) -> Iterator[object]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, BaseModel):
                yield from values_of(one)
            else:
                yield one


def loaded(project: Path, stack: Stack) -> Config:
    variables = {name: GIVEN.get(name, CANARY) for name in read_variables(stack)}
    return load_config(project, stack.environment, variables=variables).config


def test_the_stacks_are_those_of_the_blueprint() -> None:
    assert set(STACKS) == BLUEPRINT


def test_a_stack_that_is_none_is_told_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="no stack 'gcp_nativ'") as caught:
        stack_named("gcp_nativ")
    assert "did you mean 'gcp_native'" in str(caught.value)


def test_the_config_loads_with_its_variables_and_has_all_that_serving_needs(
    project: Path, stack: Stack
) -> None:
    config = loaded(project, stack)
    assert config.environment.serving == "allowed"
    assert config.serving.authentication.required
    assert config.feature_store is not None
    assert config.feature_store.chosen is not None


def test_every_secret_comes_from_a_variable(project: Path, stack: Stack) -> None:
    secrets = {
        value.get_secret_value()
        for value in values_of(loaded(project, stack))
        if isinstance(value, SecretStr)
    }
    ours = {"redis", "dynamodb"}  # what feast.online may be called
    assert len(secrets - ours) >= 3
    for secret in secrets - ours:
        assert CANARY in secret or secret == GIVEN["LODESTAR_API_KEY_SHA256"], secret


def test_without_them_every_variable_that_is_missing_is_named(project: Path, stack: Stack) -> None:
    with pytest.raises(SettingsError) as caught:
        load_config(project, stack.environment, variables={})
    for name, default in read_variables(stack).items():
        assert (f"variable {name} is not set" in str(caught.value)) is (default is None)


def test_the_template_lists_each_variable_and_those_with_a_default_as_comments(
    stack: Stack,
) -> None:
    pairs = re.findall(r"^(#?)(LODESTAR_\w+)=''$", template(stack), re.MULTILINE)
    assert len({name for _, name in pairs}) == len(pairs)
    wanted = {name: default is not None for name, default in read_variables(stack).items()}
    assert {name: mark == "#" for mark, name in pairs} == wanted


def test_the_file_says_what_to_install_and_where_it_is_served(stack: Stack) -> None:
    text = config_text(stack)
    assert f"#   {stack.install}\n" in text
    assert f"lodestar check --online --env {stack.environment}\n" in text
    targets = re.search(r"lodestar deploy render (\S+) --run-id", text)
    assert targets is not None
    assert tuple(targets[1].split("|")) == stack.targets


@pytest.mark.parametrize("stack", STACKS.values(), ids=lambda stack: stack.name)
def test_extras_and_targets_are_there(stack: Stack) -> None:
    assert set(stack.extras) <= set(metadata("lodestar-ml").get_all("Provides-Extra") or [])
    assert set(stack.targets) <= set(TARGETS)


def test_a_stack_adds_its_files_and_takes_none_away(tmp_path: Path) -> None:
    plain, made = tmp_path / "plain", tmp_path / "made"
    create_project(plain)
    create_project(made, stack_named("on_premises"))

    def names(folder: Path) -> set[str]:
        return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}

    assert names(made) - names(plain) == {"config/prod.yaml", "config/prod.env.example"}
    assert names(plain) <= names(made)
    assert "*.env" in (made / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_local_development_is_what_every_project_has(tmp_path: Path) -> None:
    stack = stack_named("local_development")
    create_project(tmp_path / "project", stack)
    assert (tmp_path / "project" / "config" / f"{stack.environment}.yaml").is_file()
    assert not (tmp_path / "project" / "config" / "prod.yaml").exists()
