"""What is deployed: one run, as an image, with what it may use and what it is told. Plain values.

Every target is written from the same `Service`; what cannot be is said before anything is written.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lodestar.errors import UsageError

__all__ = [
    "HOME",
    "LIVE",
    "PORT",
    "READY",
    "USER",
    "Resources",
    "Scale",
    "Service",
    "check_base",
    "check_image",
    "check_name",
    "name_of",
]

PORT = 8000
# No user of the base image, and above those that a host hands out.
USER = 10001
HOME = "/srv/lodestar"
LIVE, READY = "/health/live", "/health/ready"
LONGEST_NAME = 40
MEBIBYTES = {"M": 1, "Mi": 1, "G": 1024, "Gi": 1024}
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._:-]*(?:/[a-z0-9._-]+)*(?P<tag>:[\w][\w.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)


@dataclass(frozen=True)
class Resources:
    """What one instance gets: processors, and memory in MiB."""

    cpu: float
    memory: int

    @classmethod
    def parse(cls, cpu: str, memory: str) -> "Resources":
        """Read `0.5` or `500m`, and `512Mi` or `1Gi`.

        Raises:
            UsageError: they are not written so, or are nothing.
        """
        return cls(_processors(cpu), _mebibytes(memory))

    @property
    def millicores(self) -> int:
        """Thousandths of a processor."""
        return round(self.cpu * 1000)

    @property
    def gibibytes(self) -> float:
        """Memory in GiB."""
        return self.memory / 1024


@dataclass(frozen=True)
class Scale:
    """How many instances there are at least and at most; at most 0 is as many as the target gives."""

    least: int
    most: int

    @classmethod
    def of(
        cls, replicas: int | None, least: int | None, most: int | None, usual: tuple[int, int]
    ) -> "Scale":
        """`--replicas N`, or `--min` and `--max`; the `usual` range where nothing is said.

        Raises:
            UsageError: both ways at once, or more at least than at most.
        """
        if replicas is not None:
            if least is not None or most is not None:
                raise UsageError(
                    "--replicas is a fixed number, --min and --max are a range",
                    hint="give one or the other",
                )
            return cls(replicas, replicas)
        if least is not None and most is not None and least > most:
            raise UsageError(f"--min {least} is more than --max {most}")
        low = least if least is not None else min(usual[0], most or usual[0])
        return cls(low, most if most is not None else max(low, usual[1]) if usual[1] else 0)

    @property
    def moves(self) -> bool:
        """Whether there is a range to scale in."""
        return self.most == 0 or self.least < self.most


@dataclass(frozen=True)
class Service:
    """One run, served by an image. `secrets` names variables whose values come from a secret store.

    `writable` lists folders below the project that serving writes to; `calls_out` says whether it reads
    features from an online store.
    """

    name: str
    image: str
    run_id: str
    run_name: str
    recipe: str
    digest: str
    environment: str
    resources: Resources
    scale: Scale
    secrets: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    writable: tuple[str, ...] = ()
    calls_out: bool = False
    grace_seconds: int = 10
    answer_seconds: int = 10
    concurrency: int = 256

    @property
    def stop_seconds(self) -> int:
        """How long an instance may take to end: the drain, and a little to be told and to go."""
        return self.grace_seconds + 10

    @property
    def volumes(self) -> dict[str, str]:
        """Name to path of all that can be written, where the root file system cannot."""
        own = {f"writable-{at}": f"{HOME}/{path}" for at, path in enumerate(self.writable)}
        return {"tmp": "/tmp", **own}  # noqa: S108 -- the container's own

    @property
    def labels(self) -> dict[str, str]:
        """What says where an instance comes from."""
        return {
            "lodestar.run-id": self.run_id,
            "lodestar.artifact-digest": self.digest,
            "lodestar.recipe": self.recipe,
            "lodestar.environment": self.environment,
        }


def name_of(recipe: str) -> str:
    """A service's name from a recipe's: `uplift_model_exp3` → `uplift-model-exp3`."""
    name = re.sub(r"[^a-z0-9]+", "-", recipe.lower()).strip("-")
    if not name[:1].isalpha():
        name = f"model-{name}".rstrip("-")
    return name[:LONGEST_NAME].rstrip("-")


def check_name(name: str) -> str:
    """A name that all targets take.

    Raises:
        UsageError: it is none.
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UsageError(
            f"{name!r} is no name of a service",
            hint=f"lower-case letters, digits and -, a letter first, {LONGEST_NAME} at most",
        )
    return name


def check_image(image: str | None) -> str:
    """An image's name that says which version.

    Raises:
        UsageError: none was given, it is none, or it means another image every day.
    """
    example = "for example --image registry.example.com/shop/uplift:2025-07-13"
    if not image:
        raise UsageError(
            "--image is missing: the name that the image is pushed under", hint=example
        )
    found = _IMAGE.fullmatch(image)
    if found is None:
        raise UsageError(f"{image!r} is no name of an image", hint=example)
    if not found["digest"] and found["tag"] in (None, ":latest"):
        raise UsageError(
            f"{image!r} means another image after every push, so nothing would roll back to it",
            hint=f"{example}, or @sha256:… of what was pushed",
        )
    return image


def check_base(image: str) -> str:
    """The name of an image to build on, as it was given.

    Raises:
        UsageError: it is none.
    """
    if _IMAGE.fullmatch(image) is None:
        raise UsageError(
            f"--base-image {image!r} is no name of an image", hint="python:3.11-slim@sha256:…"
        )
    return image


def _processors(text: str) -> float:
    found = re.fullmatch(r"(\d+)m|(\d+(?:\.\d+)?)", text)
    value = 0.0 if found is None else int(found[1]) / 1000 if found[1] else float(found[2])
    if not 0 < value <= 256 or not math.isclose(value * 1000, round(value * 1000)):  # noqa: PLR2004 -- more than any machine
        raise UsageError(f"--cpu {text!r} is no number of processors", hint="0.5, 500m, 2")
    return value


def _mebibytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(Mi?|Gi?)", text)
    value = 0 if found is None else round(float(found[1]) * MEBIBYTES[found[2]])
    if not 1 <= value <= 1 << 21:
        raise UsageError(f"--memory {text!r} is no amount of memory", hint="512Mi, 1Gi, 1.5Gi")
    return value
