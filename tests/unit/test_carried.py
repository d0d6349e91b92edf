"""A project's own modules come from the artifact's verified source, whatever lies beside it."""

import importlib
import os
import py_compile
import sys
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from lodestar.artifact.carried import project_modules, use_carried_modules

NAMES = ("carried_model", "carried_team", "carried_team.models", "carried_team.features")


@pytest.fixture(autouse=True)
def _no_trace() -> Iterator[None]:
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in NAMES:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def test_a_tampered_bytecode_file_beside_the_source_is_never_run(tmp_path: Path) -> None:
    source = tmp_path / "carried_model.py"
    source.write_text("WHO = 'evil'\n")
    py_compile.compile(
        str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, doraise=True
    )
    assert Path(cache_from_source(str(source))).is_file()
    source.write_text("WHO = 'good'\n")
    use_carried_modules(tmp_path, {"carried_model": "carried_model.py"})
    assert importlib.import_module("carried_model").WHO == "good"


def test_the_tampered_bytecode_would_be_run_by_pythons_own_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "carried_model.py"
    source.write_text("WHO = 'evil'\n")
    py_compile.compile(
        str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, doraise=True
    )
    source.write_text("WHO = 'good'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("carried_model").WHO == "evil"


def test_a_module_of_that_name_elsewhere_on_the_path_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, who in (("project", "changed since"), ("artifact", "as trained")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "carried_model.py").write_text(f"WHO = {who!r}\n")
    monkeypatch.syspath_prepend(tmp_path / "project")
    use_carried_modules(tmp_path / "artifact", {"carried_model": "carried_model.py"})
    assert importlib.import_module("carried_model").WHO == "as trained"


def test_a_package_is_carried_with_its_parts(tmp_path: Path) -> None:
    package = tmp_path / "carried_team"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "features.py").write_text("FACTOR = 3\n")
    (package / "models.py").write_text(
        "from .features import FACTOR\nclass Model:\n    by = FACTOR\n"
    )
    modules = {
        "carried_team": "carried_team/__init__.py",
        "carried_team.models": "carried_team/models.py",
        "carried_team.features": "carried_team/features.py",
    }
    use_carried_modules(tmp_path, modules)
    assert importlib.import_module("carried_team.models").Model.by == 3


def test_modules_that_are_not_carried_are_imported_as_ever(tmp_path: Path) -> None:
    use_carried_modules(tmp_path, {"carried_model": "carried_model.py"})
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_a_class_of_the_project_brings_the_projects_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "carried_team"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "features.py").write_text("FACTOR = 3\n")
    (package / "models.py").write_text(
        "from .features import FACTOR\nclass Model:\n    by = FACTOR\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("carried_team.models").Model
    found = project_modules([model], tmp_path.resolve())
    assert set(found) == {"carried_team", "carried_team.models", "carried_team.features"}
    assert found["carried_team.models"].read_text().startswith("from .features")


def test_an_installed_class_brings_nothing(tmp_path: Path) -> None:
    from sklearn.svm import SVC

    assert project_modules([SVC, os.PathLike], tmp_path.resolve()) == {}


def brought(folder: Path, who: str, by: int) -> None:
    """An artifact whose package says who it is, and counts by a number of another module of it."""
    package = folder / "carried_team"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "features.py").write_text(f"FACTOR = {by}\n")
    (package / "models.py").write_text(
        "from .features import FACTOR\n"
        "class Model:\n"
        f"    who = {who!r}\n"
        "    def by(self):\n"
        "        return FACTOR\n"
    )
    use_carried_modules(
        folder,
        {
            "carried_team": "carried_team/__init__.py",
            "carried_team.models": "carried_team/models.py",
            "carried_team.features": "carried_team/features.py",
        },
    )


def test_two_artifacts_in_one_process_have_each_their_own_code(tmp_path: Path) -> None:
    brought(tmp_path / "one", "same text", 3)
    one = importlib.import_module("carried_team.models").Model()
    brought(tmp_path / "two", "same text", 5)
    two = importlib.import_module("carried_team.models").Model()
    assert (one.by(), two.by()) == (3, 5), "models.py is the same, and what it imports is not"
    assert one.by() == 3


def test_two_artifacts_with_the_same_code_share_it(tmp_path: Path) -> None:
    brought(tmp_path / "one", "same", 3)
    one = importlib.import_module("carried_team.models")
    brought(tmp_path / "two", "same", 3)
    assert importlib.import_module("carried_team.models") is one


def test_finders_do_not_pile_up(tmp_path: Path) -> None:
    before = len(sys.meta_path)
    for at in range(5):
        brought(tmp_path / str(at), "who", at)
    assert len(sys.meta_path) == before + 1
