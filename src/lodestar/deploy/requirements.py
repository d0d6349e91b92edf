"""What the image installs: every package with its version and the hashes of its files.

The versions are those that the artifact was made with, and, for what serving adds, those that are
installed here: nothing newer than what was tried. `uv` resolves them for Linux and finds their hashes.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from lodestar.deploy.wheel import DISTRIBUTION, Wheel
from lodestar.errors import ExternalError, UsageError, choices

__all__ = ["Pins", "Wanted", "checked_lock", "locked"]

# XGBoost opens it for several GPUs alone, and it is 340 MB.
NEVER = ("nvidia-nccl-cu12", "nvidia-nccl-cu13")
WITHIN = 600.0
_LINE = re.compile(
    r"^(?P<requirement>[^\s\\#-][^\\]*?)\s*(?P<hashes>(?:\\?\s*--hash=sha256:[0-9a-f]{64}\s*)+)$"
)


@dataclass(frozen=True)
class Pins:
    """Versions by package: `direct` have to be there, `all` limit what else is."""

    direct: dict[str, str]
    all: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """Lodestar with extras, what of it is installed `here`, and what the artifact was made with."""

    wheel: Wheel
    extras: tuple[str, ...]
    here: Mapping[str, str]
    artifact: Pins
    python: str

    @property
    def constraints(self) -> str:
        """The artifact's versions first, then those that are installed here."""
        pins = {**self.here, **self.artifact.all}
        kept = {name: pin for name, pin in pins.items() if name not in (DISTRIBUTION, *NEVER)}
        return "".join(f"{name}=={version}\n" for name, version in sorted(kept.items()))

    @property
    def direct(self) -> str:
        """The artifact's own packages."""
        return "".join(f"{name}=={pin}\n" for name, pin in sorted(self.artifact.direct.items()))

    @property
    def minor(self) -> str:
        """`3.11.7` → `3.11`."""
        return ".".join(self.python.split(".")[:2])

    @property
    def header(self) -> str:
        """The lock's first line, which tells one question's answer from another's."""
        asked = (self.wheel.metadata, *self.extras, self.direct, self.constraints, self.minor)
        return f"# for {hashlib.sha256(chr(0).join(asked).encode()).hexdigest()}\n"


def locked(wanted: Wanted, *, known: Path) -> str:
    """The lock's text; the file `known` where it answers the same question.

    Raises:
        UsageError: uv is not installed, or the versions do not go together.
        ExternalError: no index answers in time.
    """
    _check_installed(wanted.extras)
    header = wanted.header
    if known.is_file():
        text = known.read_text(encoding="utf-8")
        if text.startswith(header):
            return text
    with TemporaryDirectory(prefix="lodestar-lock-") as folder:
        return header + _compiled(wanted, Path(folder))


def checked_lock(path: Path, pins: Pins) -> str:
    """A lock that somebody else made: whole, hashed, and with the artifact's own packages.

    Raises:
        UsageError: what it lacks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--requirements {path} cannot be read") from error
    found: dict[str, set[str]] = {}  # by platform there may be several
    joined = re.sub(r"\\\n", " ", text)
    for line in filter(None, map(str.strip, joined.splitlines())):
        if line.startswith("#"):
            continue
        name, version = _pin(line, path)
        found.setdefault(name, set()).add(version)
    for name, version in pins.direct.items():
        if version not in found.get(name, ()):
            has = ", ".join(sorted(found.get(name, ()))) or "none"
            raise UsageError(
                f"the artifact was made with {name} {version}, and the lock has {has}",
                where=str(path),
                hint="leave --requirements out to have one made",
            )
    return text


def _pin(line: str, path: Path) -> tuple[str, str]:
    matched = _LINE.match(line)
    try:
        requirement = Requirement(matched["requirement"]) if matched else None
    except InvalidRequirement:
        requirement = None
    versions = [] if requirement is None else list(requirement.specifier)
    if requirement is None or len(versions) != 1 or versions[0].operator != "==":
        raise UsageError(
            f"{line.split(maxsplit=1)[0]!r} is not pinned to one version with its hashes",
            where=str(path),
            hint="uv pip compile --generate-hashes, or pip-compile --generate-hashes, makes such a file",
        )
    return canonicalize_name(requirement.name), versions[0].version


def _compiled(wanted: Wanted, folder: Path) -> str:
    wheel = folder / wanted.wheel.name
    wheel.write_bytes(wanted.wheel.content)
    extras = ",".join(wanted.extras)
    texts = {
        "asked.in": f"{DISTRIBUTION}[{extras}] @ {wheel.as_uri()}\n{wanted.direct}",
        "versions.txt": wanted.constraints,
        "never.txt": "".join(f"{name}; sys_platform == 'never'\n" for name in NEVER),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [
        _uv(),
        *("pip", "compile", "--quiet", "asked.in", "--generate-hashes"),
        *("--constraints", "versions.txt", "--overrides", "never.txt"),
        *("--python-version", wanted.minor, "--python-platform", "linux"),
        *("--only-binary", ":all:", "--no-emit-package", DISTRIBUTION),
        *("--no-emit-index-url", "--no-header", "--no-annotate"),
    ]
    try:
        done = subprocess.run(  # noqa: S603 -- uv's own binary
            command, cwd=folder, capture_output=True, text=True, timeout=WITHIN, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExternalError(f"uv did not lock the packages within {WITHIN:g} s") from error
    if done.returncode:
        raise UsageError(
            f"the image's packages cannot be locked:\n  {_said(done.stderr)}",
            hint="uv needs a package index; versions that do not go together need another training, "
            "or a lock of your own: --requirements FILE",
        )
    return done.stdout


def _said(text: str) -> str:
    """What uv says, without the passwords of its indexes."""
    return re.sub(r"//[^/@\s]+@", "//", text.strip()).replace("\n", "\n  ")


def _uv() -> str:
    try:
        from uv import find_uv_bin
    except ImportError:
        found = shutil.which("uv")
    else:
        found = find_uv_bin()
    if found is None:
        raise UsageError(
            "uv, which locks the image's packages, is not installed",
            hint="pip install 'lodestar-ml[deploy]', or give a lock: --requirements FILE",
        )
    return found


def _check_installed(extras: Sequence[str]) -> None:
    """Refuse to lock what nobody has tried here."""
    declared = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for extra in extras:
        if extra not in declared:
            raise UsageError(f"there is no extra {extra!r}", hint=choices(extra, declared))
    for line in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            metadata.version(requirement.name)
        except metadata.PackageNotFoundError as error:
            listed = ",".join(extras)
            raise UsageError(
                f"{requirement.name}, which the image needs, is not installed here, so no version of "
                "it was tried",
                hint=f"pip install 'lodestar-ml[{listed}]', or give a lock: --requirements FILE",
            ) from error
