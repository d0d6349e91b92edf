"""Runs a Dockerfile without Docker: each instruction really, in root directories of its own."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.clean_root import Image, in_root

__all__ = ["build"]

# Where what is copied is seen; a folder of its own, which no image has.
FROM = "/mnt/from"
SECRET = re.compile(r"--mount=type=secret,id=(\w+),target=(\S+)\s+")


def build(
    dockerfile: Path,
    base: Path,
    folder: Path,
    *,
    secrets: Mapping[str, Path],
    known: Mapping[str, Image] | None = None,
) -> Image:
    """Run a Dockerfile's instructions, its context being the folder that it lies in.

    `base` stands for any image that it names, but for those that are `known`. Instructions that nobody
    has written here fail.
    """
    building = _Build(dockerfile.parent, base, folder, secrets, dict(known or {}))
    for number, (word, rest) in enumerate(_instructions(dockerfile)):
        if word == "FROM":
            building.begin(rest, number)
        else:
            getattr(building, word.lower())(rest)
    return building.image


class _Build:
    """The stage that is being built, and those before it. A method for each instruction."""

    def __init__(
        self,
        context: Path,
        base: Path,
        folder: Path,
        secrets: Mapping[str, Path],
        stages: dict[str, Image],
    ) -> None:
        self._context = context
        self._base = base
        self._folder = folder
        self._secrets = secrets
        self._stages = stages
        self.image = Image([base])

    def begin(self, text: str, number: int) -> None:
        source, _, name = text.partition(" AS ")
        below = self._stages.get(source, Image([self._base]))
        self.image = below.derived(self._folder / f"layer-{number}")
        if name:
            self._stages[name] = self.image

    def run(self, text: str) -> None:
        binds = []
        while found := SECRET.match(text):
            if found[1] in self._secrets:
                binds.append((self._secrets[found[1]], found[2]))
            text = text[found.end() :]
        command = shlex.join(json.loads(text)) if text.startswith("[") else text
        in_root(self.image, command, self._folder, binds)

    def copy(self, text: str) -> None:
        *options, source, target = text.split()
        content: Path | None
        if options:
            content = self._stages[options[0].removeprefix("--from=")].path(source)
        else:
            _let_through(self._context, source)
            content = self._context / source
        assert content is not None, text
        place = os.path.normpath(Path(self.image.folder) / target)
        if content.is_dir():
            command = f"mkdir -p {place} && cp -a {FROM}/. {place}/"
        elif target.endswith("/"):
            command = f"mkdir -p {place} && cp -a {FROM} {place}/{content.name}"
        else:
            command = f"cp -a {FROM} {place}"
        in_root(self.image, command, self._folder, [(content, FROM)])
        in_root(self.image, f"rm -rf {FROM}", self._folder)

    def env(self, text: str) -> None:
        for key, value in _pairs(text):
            self.image.env[key] = value.replace("$PATH", self.image.env["PATH"])

    def label(self, text: str) -> None:
        self.image.labels |= dict(_pairs(text))

    def workdir(self, text: str) -> None:
        in_root(self.image, f"mkdir -p {shlex.quote(text)}", self._folder)
        self.image.folder = text

    def user(self, text: str) -> None:
        self.image.user = text

    def volume(self, text: str) -> None:
        self.image.volumes = json.loads(text)

    def healthcheck(self, text: str) -> None:
        self.image.probe = json.loads(text.partition(" CMD ")[2])

    def entrypoint(self, text: str) -> None:
        self.image.entrypoint = json.loads(text)

    def expose(self, text: str) -> None:
        assert text.isdigit()


def _instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, rest.strip()


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in shlex.split(text):
        key, _, value = part.partition("=")
        yield key, value


def _let_through(context: Path, name: str) -> None:
    """The context has what .dockerignore lets through, and nothing else."""
    lines = (context / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    assert f"!{name.removeprefix('./')}" in lines, f"{name} is ignored"
