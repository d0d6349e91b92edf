"""A project's own modules inside its artifacts: found when trained, imported from there later."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

__all__ = ["project_modules", "use_carried_modules"]


def project_modules(classes: Iterable[type], project: Path) -> dict[str, Path]:
    """The project's modules that these classes need: module name → source file.

    A class that comes from below the project brings every project module imported by now.
    """
    own = [cls for cls in classes if _source(sys.modules[cls.__module__], project)]
    if not own:
        return {}
    found = {
        name: source
        for name, module in list(sys.modules.items())
        if (source := _source(module, project)) and not name.startswith("lodestar")
    }
    return dict(sorted(found.items()))


def use_carried_modules(folder: Path, modules: Mapping[str, str]) -> None:
    """Import these modules from the artifact's verified files, whatever else is on the path.

    A process may load several artifacts. Where one of them brought a module of the same name and with
    other source, that one's objects keep it, and whatever is loaded from now on gets this one's.
    """
    if not modules:
        return
    finder = _CarriedFinder(folder, modules)
    if any(finder.differs(name) for name in modules):
        for name in modules:
            if finder.was_carried(name):
                del sys.modules[name]
    sys.meta_path[:] = [finder, *(other for other in sys.meta_path if not finder.hides(other))]


def _source(module: ModuleType, project: Path) -> Path | None:
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py") or module.__name__ == "__main__":
        return None
    path = Path(file).resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return path if path.is_relative_to(project) and not installed else None


class _CarriedFinder(MetaPathFinder):
    def __init__(self, folder: Path, modules: Mapping[str, str]) -> None:
        self.files = {name: folder / file for name, file in modules.items()}

    def was_carried(self, name: str) -> bool:
        """Whether an artifact brought the module of this name that is loaded."""
        return _loader_of(name) is not None

    def differs(self, name: str) -> bool:
        """Whether it did, and with other source."""
        loader = _loader_of(name)
        return loader is not None and loader.source != self.files[name].read_bytes()

    def hides(self, other: object) -> bool:
        """Whether another finder is never asked any more."""
        return isinstance(other, _CarriedFinder) and self.files.keys() >= other.files.keys()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        file = self.files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(
            fullname,
            file,
            loader=_VerifiedSource(fullname, str(file)),
            submodule_search_locations=[str(file.parent)] if file.name == "__init__.py" else None,
        )


class _VerifiedSource(SourceFileLoader):
    """Compiles the source that the manifest vouches for; a cached bytecode file is never read."""

    source: bytes | None = None

    def get_code(self, fullname: str) -> CodeType:
        self.source = self.get_data(self.path)
        return self.source_to_code(self.source, self.get_filename(fullname))


def _loader_of(name: str) -> _VerifiedSource | None:
    """What loaded a module, if it came from an artifact."""
    spec = sys.modules[name].__spec__ if name in sys.modules else None
    loader = None if spec is None else spec.loader
    return loader if isinstance(loader, _VerifiedSource) else None
