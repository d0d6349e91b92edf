"""The image's packages: a lock with hashes, and Lodestar's own wheel."""

import subprocess
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lodestar.artifact.lock import installed
from lodestar.deploy.requirements import Pins, Wanted, checked_lock, locked
from lodestar.deploy.wheel import DISTRIBUTION, own_wheel
from lodestar.errors import UsageError

HASH = f"--hash=sha256:{'a' * 64}"
PINS = Pins({"numpy": "2.3.0"}, {"numpy": "2.3.0"})


WANTED = Wanted(
    wheel=own_wheel(),
    extras=("serving",),
    here={"httptools": "0.7.1"},
    artifact=PINS,
    python="3.11.7",
)


def wanted(**changes: Any) -> Wanted:  # noqa: ANN401 -- any field of it
    return replace(WANTED, **changes)


def test_the_wheel_is_the_code_that_runs_here_and_the_same_bytes_each_time() -> None:
    wheel = own_wheel()
    assert wheel == own_wheel()
    with zipfile.ZipFile(BytesIO(wheel.content)) as archive:
        names = archive.namelist()
        source = Path(sys.modules["lodestar"].__file__ or "").read_bytes()
        assert archive.read("lodestar/__init__.py") == source
    assert "lodestar/cli/app.py" in names
    assert not [name for name in names if "__pycache__" in name]
    assert wheel.requirement.startswith(f"./wheels/{wheel.name} --hash=sha256:")


def test_pip_installs_the_wheel(tmp_path: Path) -> None:
    wheel = own_wheel()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / wheel.name).write_bytes(wheel.content)
    (tmp_path / "lodestar.txt").write_text(wheel.requirement, encoding="utf-8")
    options = ("--no-deps", "--no-index", "--no-compile", "--require-hashes", "--target", "here")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *options, "-r", "lodestar.txt"],
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "here/lodestar/cli/app.py").is_file()
    assert (tmp_path / "here/bin/lodestar").is_file()


def test_the_artifacts_versions_come_before_those_that_are_installed_here() -> None:
    lines = wanted(here={"numpy": "9.9", "nvidia-nccl-cu12": "2", DISTRIBUTION: "0.1.0"})
    assert lines.constraints == "numpy==2.3.0\n"
    assert lines.direct == "numpy==2.3.0\n"


def test_the_question_is_another_when_anything_is_asked_otherwise() -> None:
    headers = {
        wanted().header,
        wanted(extras=("serving", "native")).header,
        wanted(here={}).header,
        wanted(artifact=Pins({}, {})).header,
        wanted(python="3.12.1").header,
    }
    assert len(headers) == 5
    assert wanted(python="3.11.9").header == wanted().header


def test_a_lock_that_answers_the_same_question_is_taken_as_it_is(tmp_path: Path) -> None:
    known = tmp_path / "requirements.txt"
    known.write_text(wanted().header + "kept==1\n", encoding="utf-8")
    assert locked(wanted(), known=known) == known.read_text(encoding="utf-8")


def test_an_extra_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no extra 'srving'"):
        locked(wanted(extras=("srving",)), known=tmp_path / "none")


def test_what_is_installed_with_extras_is_more_than_without() -> None:
    bare, served = installed(DISTRIBUTION, ()), installed(DISTRIBUTION, ("serving",))
    assert "fastapi" in served
    assert bare.items() < served.items()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"numpy==2.3.0 {HASH}\nother>=1 {HASH}\n", "'other>=1' is not pinned"),
        ("numpy==2.3.0\n", "'numpy==2.3.0' is not pinned"),
        (f"numpy==2.3.1 {HASH}\n", r"made with numpy 2\.3\.0, and the lock has 2\.3\.1"),
        (f"pandas==1.0 {HASH}\n", "the lock has none"),
        (f"--index-url https://example.com\nnumpy==2.3.0 {HASH}\n", "is not pinned"),
    ],
)
def test_a_lock_of_ones_own_is_pinned_hashed_and_the_artifacts(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        checked_lock(path, PINS)


def test_a_good_lock_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    text = (
        f"# made by hand\nNumPy==2.3.0 \\\n    {HASH} \\\n    {HASH}\n"
        f"uvloop==0.22 ; sys_platform != 'win32' \\\n    {HASH}\n"
    )
    path.write_text(text, encoding="utf-8")
    assert checked_lock(path, PINS) == text
    with pytest.raises(UsageError, match="cannot be read"):
        checked_lock(tmp_path / "none.txt", PINS)


@pytest.mark.parametrize("name", ["run", "dev"])
def test_the_locks_of_this_repository_are_read(name: str) -> None:
    path = Path(__file__).parents[2] / "requirements" / f"{name}.txt"
    assert checked_lock(path, Pins({}, {})) == path.read_text(encoding="utf-8")
