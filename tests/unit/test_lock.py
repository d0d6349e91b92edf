"""The lock: exact versions of what predicts, and what a difference means."""

import json
import platform
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from lodestar.artifact.lock import Lock, compare, imported_packages, lock_of
from lodestar.errors import ArtifactError

NUMPY = Version(metadata.version("numpy"))


def a_lock(name: str = "numpy", version: str = str(NUMPY), python: str = "") -> Lock:
    direct = {name: version}
    return Lock(python or platform.python_version(), direct, direct)


def test_the_versions_are_those_that_are_installed() -> None:
    lock = lock_of(["xgboost", "sklearn"])
    assert {"xgboost", "scikit-learn", "mlflow", "numpy", "pandas", "pyarrow"} <= set(lock.direct)
    for name, version in lock.all.items():
        assert metadata.version(name) == version
    assert lock.python == platform.python_version()


def test_the_lock_is_complete_with_what_each_part_needs() -> None:
    lock = lock_of(["sklearn"])
    for name in lock.all:
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None:
                assert requirement.name.lower().replace("_", "-") in lock.all, (name, line)
    assert "scipy" in lock.all
    assert "xgboost" not in lock.all


def test_requirements_are_pinned_lines() -> None:
    for line in lock_of(["lightgbm"]).requirements():
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "=="


def test_a_lock_survives_json() -> None:
    lock = lock_of(["sklearn"])
    assert Lock.from_json(json.loads(json.dumps(lock.to_json()))) == lock


def test_equal_versions_say_nothing() -> None:
    assert compare(lock_of(["sklearn"])) == ()


@pytest.mark.parametrize(
    "other",
    [f"{NUMPY.major}.{NUMPY.minor}.{NUMPY.micro + 1}", f"{NUMPY.major}.{NUMPY.minor + 1}.0"],
)
def test_another_patch_or_minor_version_is_a_warning(other: str) -> None:
    (warning,) = compare(a_lock(version=other))
    assert warning == f"numpy {NUMPY} is installed, and the artifact was made with {other}"


def test_another_major_version_is_an_error_that_says_what_to_install() -> None:
    other = f"{NUMPY.major + 1}.0.0"
    with pytest.raises(ArtifactError, match=f"numpy {NUMPY} is installed") as caught:
        compare(a_lock(version=other))
    assert f"pip install 'numpy=={other}'" in str(caught.value)


def test_a_package_that_is_missing_is_an_error() -> None:
    with pytest.raises(ArtifactError, match=r"no-such-package 1\.0 is not installed"):
        compare(a_lock("no-such-package", "1.0"))


def test_another_python_is_a_warning_but_not_another_patch_of_it() -> None:
    version = Version(platform.python_version())
    (warning,) = compare(a_lock(python="3.9.1"))
    assert "3.9.1" in warning
    assert compare(a_lock(python=f"{version.major}.{version.minor}.99")) == ()


def test_imports_of_a_projects_modules_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import os, sklearn.svm as s\nfrom xgboost.core import x\nfrom . import b\nfrom .c import d\n"
        "def f():\n    import catboost\n"
    )
    assert imported_packages([tmp_path / "a.py"]) == {"sklearn", "xgboost", "catboost"}


@pytest.mark.parametrize(
    ("info", "file", "text"),
    [
        ("dist-info", "RECORD", "frobs/__init__.py,,\n"),
        ("dist-info", "RECORD", "frobs.py,,\n"),
        ("egg-info", "top_level.txt", "frobs\n"),
    ],
)
def test_a_package_is_found_in_the_distribution_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: str, file: str, text: str
) -> None:
    folder = tmp_path / f"works_of_frob-1.5.{info}"
    folder.mkdir()
    said = "Metadata-Version: 2.1\nName: works-of-frob\nVersion: 1.5\n"
    (folder / ("METADATA" if info == "dist-info" else "PKG-INFO")).write_text(said)
    (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert lock_of(["frobs"]).direct["works-of-frob"] == "1.5"
    assert "works-of-frob" not in lock_of(["frob"]).direct
