"""What is public is listed, and what is listed is there."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import lodestar

ROOT = Path(lodestar.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "lodestar.")
    # MLflow runs the entry inside an artifact, and Python runs __main__: importing them is running.
    if module.name != "lodestar.artifact.entry" and not module.name.endswith("__main__")
)


def tree(name: str) -> ast.Module:
    path = ROOT.parent / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def test_the_package_itself_gives_its_version_alone() -> None:
    assert lodestar.__all__ == ["__version__"]
    assert lodestar.__version__


def test_all_modules_are_found() -> None:
    assert {"lodestar.cli.app", "lodestar.factory", "lodestar.testing.data"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_listed_name_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    if listed is None:
        assert all(isinstance(node, ast.Expr) for node in tree(name).body), f"{name} has no __all__"
        return
    assert len(set(listed)) == len(listed)
    for item in listed:
        assert hasattr(module, item), f"{name} lists {item}"
        assert item == "__version__" or not item.startswith("_"), f"{name} lists {item}"
