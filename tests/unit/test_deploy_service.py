"""What is deployed, in plain values; and what a target has to be told."""

import pytest
from tests.deploying import ECR, IMAGE, SETTINGS, a_service, loaded, rendered

from lodestar.deploy.dockerfile import base_image, dockerfile
from lodestar.deploy.service import Resources, Scale, check_base, check_image, check_name, name_of
from lodestar.deploy.settings import read_settings
from lodestar.deploy.targets import TARGETS, the_target
from lodestar.errors import UsageError


@pytest.mark.parametrize(
    ("given", "usual", "scale"),
    [
        ((3, None, None), (2, 4), Scale(3, 3)),
        ((None, None, None), (2, 4), Scale(2, 4)),
        ((None, 3, None), (2, 4), Scale(3, 4)),
        ((None, 6, None), (2, 4), Scale(6, 6)),
        ((None, None, 1), (2, 4), Scale(1, 1)),
        ((None, 1, 9), (2, 4), Scale(1, 9)),
        ((None, None, None), (0, 0), Scale(0, 0)),
        ((None, 2, None), (0, 0), Scale(2, 0)),
    ],
)
def test_a_scale_is_a_number_a_range_or_what_is_usual(
    given: tuple[int | None, int | None, int | None], usual: tuple[int, int], scale: Scale
) -> None:
    assert Scale.of(*given, usual) == scale


def test_a_scale_is_not_both_and_not_upside_down() -> None:
    with pytest.raises(UsageError, match="--replicas is a fixed number"):
        Scale.of(2, 1, None, (1, 1))
    with pytest.raises(UsageError, match="--min 3 is more than --max 2"):
        Scale.of(None, 3, 2, (1, 1))


@pytest.mark.parametrize(
    ("cpu", "memory", "millicores", "mebibytes"),
    [("1", "1Gi", 1000, 1024), ("500m", "512Mi", 500, 512), ("0.25", "1.5G", 250, 1536)],
)
def test_resources(cpu: str, memory: str, millicores: int, mebibytes: int) -> None:
    found = Resources.parse(cpu, memory)
    assert (found.millicores, found.memory) == (millicores, mebibytes)


@pytest.mark.parametrize(
    ("cpu", "memory"),
    [("0", "1Gi"), ("-1", "1Gi"), ("one", "1Gi"), ("1000", "1Gi"), ("0.00001", "1Gi"), ("1", "1")],
)
def test_resources_that_are_none(cpu: str, memory: str) -> None:
    with pytest.raises(UsageError, match="is no"):
        Resources.parse(cpu, memory)


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        ECR,
        "localhost:5000/a:1",
        "shop@sha256:" + "a" * 64,
        "r.io/a/b_c:v1@sha256:" + "0" * 64,
    ],
)
def test_an_image_says_which_version(image: str) -> None:
    assert check_image(image) == image


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "--image is missing"),
        ("", "--image is missing"),
        ("shop/api", "means another image after every push"),
        ("localhost:5000/shop/api", "means another image after every push"),
        ("shop/api:latest", "means another image after every push"),
        ("shop/api:1 --privileged", "is no name of an image"),
        ("shop/api:1\nRUN true", "is no name of an image"),
        ("Shop/api:1", "is no name of an image"),
        ("shop/api:1\n", "is no name of an image"),
    ],
)
def test_other_images_are_refused(image: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_image(image)


def test_an_image_to_build_on_needs_no_tag() -> None:
    assert check_base("python") == "python"
    with pytest.raises(UsageError, match="--base-image"):
        check_base("python AS base\nRUN true")


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("uplift_model_exp3", "uplift-model-exp3"),
        ("3 Trees", "model-3-trees"),
        ("a" * 60, "a" * 40),
        ("模型", "model"),
    ],
)
def test_a_service_is_named_after_its_recipe(recipe: str, name: str) -> None:
    assert check_name(name_of(recipe)) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a" * 41, "1a", "a\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name of a service"):
        check_name(name)


def test_a_target_names_all_that_it_has_to_be_told() -> None:
    ecs = TARGETS["ecs"]
    with pytest.raises(UsageError, match="ecs needs to be told more") as raised:
        read_settings("ecs", ecs.settings, ["region=eu-central-1"])
    assert raised.value.hint is not None
    for name in ("execution_role", "subnets", "security_groups"):
        assert f"--set {name}=…" in raised.value.hint
    assert "region" not in raised.value.hint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["regoin=x"], "has no setting 'regoin'"),
        (["region"], "is not key=value"),
        (["region="], "is not key=value"),
        (["region=a b"], "is not key=value"),
        (["region=a\n"], "is not key=value"),
        (["region=a", "region=b"], "given twice"),
    ],
)
def test_a_setting_that_is_none(given: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_settings("ecs", TARGETS["ecs"].settings, given)


def test_an_unknown_target_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="there is no target 'kubernets'") as raised:
        the_target("kubernets")
    assert raised.value.hint == "did you mean 'kubernetes'?"


@pytest.mark.parametrize(
    ("target", "changes", "more", "words"),
    [
        ("kubernetes", {"scale": Scale(0, 4)}, (), "does not scale to nothing"),
        ("compose", {}, (), "does not scale by itself"),
        ("compose", {"scale": Scale(2, 2)}, ("port=65535",), "is no port"),
        ("container-instances", {}, (), "is one instance"),
        ("cloud-run", {"resources": Resources(1.5, 1024)}, (), "no 1.5 processors"),
        ("cloud-run", {"writable": ("logs",)}, (), "would keep in memory"),
        ("cloud-run", {}, ("ingress=none",), "ingress=none is none"),
        ("ecs", {"resources": Resources(3.0, 8192)}, (), "Fargate has no 3 processors"),
        ("ecs", {"resources": Resources(1.0, 1024)}, (), "Fargate has no 1024 MiB"),
        ("lambda", {}, (), "from ECR alone"),
        ("lambda", {"image": ECR, "resources": Resources(1.0, 20_000)}, (), "no 20000 MiB"),
        ("lambda", {"image": ECR, "writable": ("logs",)}, (), "does not keep"),
        ("lambda", {"image": ECR}, ("subnets=subnet-1",), "go together"),
    ],
)
def test_what_a_target_does_not_have(
    target: str, changes: dict[str, object], more: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        rendered(target, a_service(**changes), *more)


def test_an_environment_without_an_online_store_calls_nobody() -> None:
    quiet = loaded(rendered("kubernetes", a_service(calls_out=False))["networkpolicy.yaml"])
    assert quiet["spec"]["egress"] == []
    calling = loaded(rendered("kubernetes", a_service())["networkpolicy.yaml"])
    blocks = [
        to["ipBlock"] for rule in calling["spec"]["egress"] for to in rule["to"] if "ipBlock" in to
    ]
    assert blocks == [{"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}]


def test_every_secret_is_a_reference_in_every_target() -> None:
    references = {
        "kubernetes": "key: LODESTAR_REDIS_URI",
        "cloud-run": "name: LODESTAR_REDIS_URI\n              key: latest",
        "ecs": '"valueFrom": "/breast-cancer/LODESTAR_REDIS_URI"',
        "lambda": "{{resolve:secretsmanager:breast-cancer-secrets:SecretString:LODESTAR_REDIS_URI}}",
        "container-instances": '"secretName": "lodestar-redis-uri"',
        "compose": "${LODESTAR_REDIS_URI:?not set}",
    }
    assert set(references) == set(TARGETS) == set(SETTINGS)
    for target, reference in references.items():
        one = Scale(1, 1) if target in {"compose", "container-instances"} else Scale(2, 4)
        image = ECR if target == "lambda" else IMAGE
        texts = rendered(target, a_service(scale=one, image=image))
        assert reference in "".join(texts.values()), target


def test_the_dockerfile_fills_in_nothing_that_a_recipe_is_called() -> None:
    text = dockerfile(a_service(recipe='a $HOME "b"\nRUN c'), base=base_image("3.12.4"))
    assert "FROM python:3.12-slim AS base" in text
    assert 'lodestar.recipe="a \\$HOME \\"b\\"\\nRUN c"' in text
    assert "\nRUN c" not in text
