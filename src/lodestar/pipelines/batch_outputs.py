"""Where a batch's frames go: one destination each, published together at the end."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import pyarrow as pa

from lodestar.adapters.files.folder import PartFolder
from lodestar.adapters.files.rows import FileReader, path_of
from lodestar.adapters.registry import keeps_files, scheme_of
from lodestar.errors import UsageError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.data import FrameSink
from lodestar.interface.parts import WrittenFile
from lodestar.pipelines.stream import behind
from lodestar.settings.loading import ConfigPlace, Environment

__all__ = [
    "destinations_of",
    "folders_of",
    "frames_written",
    "is_folder",
    "is_table",
    "publish",
    "refuse_anothers",
]

Frames = Mapping[str, pa.RecordBatch]


def destinations_of(
    environment: Environment, recipe: str, run_id: str, output: str | None
) -> dict[str, str]:
    """Frame → file, the predictions first. `--output` names these; the others lie beside them.

    One that ends with a slash is a folder of files, written by those who score.

    Raises:
        UsageError: `--output` leads out of the project and of the config's output root.
    """
    section = environment.config.output
    names = sorted(section.save, key=lambda name: name != "predictions")
    if is_table(output or section.root):
        table = output or f"{section.root.rstrip('/')}.{recipe}_predictions"
        stem = table.removesuffix("_predictions")
        return {name: table if name == "predictions" else f"{stem}_{name}" for name in names}
    if output is not None and is_folder(output):
        _refuse_outside(environment, output)
        stem = output.rstrip("/")
        return {name: output if name == "predictions" else f"{stem}.{name}/" for name in names}
    if output is None:
        folder = f"{section.root.rstrip('/')}/{recipe}/{run_id}"
        return {name: f"{folder}/{name}.parquet" for name in names}
    _refuse_outside(environment, output)
    stem, _, suffix = output.rpartition(".")
    found: dict[str, str] = {name: f"{stem}.{name}.{suffix}" for name in names}
    found["predictions"] = output
    return found


def is_table(destination: str) -> bool:
    """A table holds what several runs wrote; a file is one run's."""
    return not keeps_files(destination)


def is_folder(destination: str) -> bool:
    """Whether it names a folder of files, and no file."""
    return destination.endswith("/") and not is_table(destination)


def folders_of(environment: Environment, destinations: Mapping[str, str]) -> dict[str, PartFolder]:
    """The folders among the destinations; each command's files there have names of their own."""
    place = ConfigPlace(environment.project, environment.name)
    mark = secrets.token_hex(6)
    return {
        name: PartFolder(uri, mark, place) for name, uri in destinations.items() if is_folder(uri)
    }


def publish(
    folders: Mapping[str, PartFolder],
    written: Mapping[str, Sequence[WrittenFile]],
    about: Mapping[str, str],
) -> None:
    """List what was written, the predictions last."""
    for name in reversed(list(folders)):
        folders[name].publish(written[name], about)


def refuse_anothers(environment: Environment, destination: str, run_id: str) -> None:
    """See that going on with a batch replaces nothing that came there from elsewhere meanwhile.

    Raises:
        UsageError: the file holds the predictions of another run, or something else.
    """
    if is_folder(destination):
        (folder,) = folders_of(environment, {"predictions": destination}).values()
        about = folder.about()
        if about is not None:
            _refuse_other(destination, str(about.get("run_id")), run_id)
        return
    path = path_of(destination, environment.project)
    if scheme_of(destination) not in {"", "file"} or not path.is_file():
        return
    with FileReader(path).read(chunk_rows=1) as rows:
        first = next(iter(rows), None)
    writer = None
    if first is not None and "run_id" in first.schema.names:
        writer = first.column("run_id")[0].as_py()
    _refuse_other(str(path), writer, run_id)


def _refuse_other(where: str, writer: str | None, run_id: str) -> None:
    if writer != run_id:
        whose = f"the predictions of run {writer}" if writer else "something else than predictions"
        raise UsageError(
            f"{where} holds {whose}, and the batch to go on with is of run {run_id}",
            hint="move it away, or leave --resume out to replace it",
        )


@contextmanager
def frames_written(
    factory: EnvironmentFactory,
    destinations: Mapping[str, str],
    marks: Mapping[str, Mapping[str, str]],
) -> Iterator[Callable[[Frames], None]]:
    """Write frames behind; all is published when this ends well, and nothing otherwise.

    With several outputs each is atomic by itself, and the predictions appear last.
    """
    sinks: dict[str, FrameSink] = {}

    def store(frames: Frames) -> None:
        for name, frame in frames.items():
            sinks[name].write(frame)

    # The sinks close last, when nothing is left to write; they publish in reverse order, so that
    # the predictions appear when everything else has.
    with ExitStack() as stack, behind(store) as write:

        def take(frames: Frames) -> None:
            for name in destinations:
                if name not in sinks:
                    destination, replace = destinations[name], marks[name] or None
                    writer = factory.writer(destination)
                    sink = writer.sink(destination, frames[name].schema, replace=replace)
                    sinks[name] = stack.enter_context(sink)
            write(frames)

        yield take


def _refuse_outside(environment: Environment, output: str) -> None:
    if scheme_of(output) not in {"", "file"}:
        return
    project = environment.project
    path = path_of(output, project).resolve()
    allowed = (project, (project / environment.config.output.root).resolve())
    if not any(path.is_relative_to(root) for root in allowed):
        raise UsageError(
            f"--output {output} lies outside the project",
            hint="write below the project, or below output.root of the config",
        )
