"""Artifacts that are not what was recorded: refused, the file named, before anything is unpickled."""

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, Trained, copy_of

from lodestar.artifact.manifest import write_manifest
from lodestar.artifact.wrapper import load_wrapper
from lodestar.errors import ArtifactError


@pytest.fixture(scope="module")
def victim(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A run of this file's own: a forest, which is kept as a pickle."""
    project = lodestar.stocked(
        copy_of(sample_project, tmp_path_factory.mktemp("victim") / "project")
    )
    done = lodestar("train", "-r", "wine", *SMALL, "--json", cwd=project).succeeded()
    return Trained(project, done.json)


@contextlib.contextmanager
def restored(folder: Path, aside: Path) -> Iterator[None]:
    """Whatever is done to the folder, undone."""
    shutil.copytree(folder, aside, symlinks=True)
    try:
        yield
    finally:
        shutil.rmtree(folder)
        aside.rename(folder)


def flip(path: Path) -> None:
    """Flip one bit of one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = [
    "MLmodel",
    "entry.py",
    "requirements.txt",
    "conda.yaml",
    "python_env.yaml",
    "code/lodestar/artifact/wrapper.py",
    "lodestar/contents.json",
    "lodestar/components/model.pkl",
    "lodestar/components/preprocessor.json",
    "lodestar/probe_rows.arrow",
    "lodestar/probe_predictions.arrow",
    "manifest.json",
]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused_and_the_file_named(
    lodestar: Lodestar, victim: Trained, tmp_path: Path, name: str
) -> None:
    with restored(victim.artifact, tmp_path / "aside"):
        flip(victim.artifact / name)
        done = lodestar("verify", "--run-id", victim.run_id, cwd=victim.project)
    done.refused(6, name)


def test_every_file_of_the_artifact_is_covered(victim: Trained, tmp_path: Path) -> None:
    folder = shutil.copytree(victim.artifact, tmp_path / "copy")
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    assert set(FILES) <= set(names)
    for name in names:
        whole = (folder / name).read_bytes()
        if not whole:
            continue
        flip(folder / name)
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            load_wrapper(folder, digest=victim.json["artifact_digest"])
        (folder / name).write_bytes(whole)
    load_wrapper(folder, digest=victim.json["artifact_digest"])


def add(folder: Path) -> None:
    (folder / "code/lodestar/extra.py").write_text("pass\n", encoding="utf-8")


def remove(folder: Path) -> None:
    (folder / "lodestar/probe_rows.arrow").unlink()


def link(folder: Path) -> None:
    model = folder / "lodestar/components/model.pkl"
    elsewhere = folder.parent / "model.pkl"
    model.rename(elsewhere)
    model.symlink_to(elsewhere)


def link_a_directory(folder: Path) -> None:
    (folder / "code/more").symlink_to("/tmp")  # noqa: S108 -- only its name is read


def remove_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def list_the_change(folder: Path) -> None:
    """Whoever can write the files can write their digests: the run's own digest tells."""
    flip(folder / "lodestar/components/model.pkl")
    write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (add, "code/lodestar/extra.py"),
        (remove, "lodestar/probe_rows.arrow"),
        (link, "lodestar/components/model.pkl is a link"),
        (link_a_directory, "code/more is a link"),
        (remove_the_manifest, "manifest.json"),
        (list_the_change, "manifest.json"),
    ],
)
def test_files_that_are_new_gone_or_elsewhere_are_refused(
    lodestar: Lodestar,
    victim: Trained,
    tmp_path: Path,
    change: Callable[[Path], None],
    word: str,
) -> None:
    with restored(victim.artifact, tmp_path / "aside"):
        change(victim.artifact)
        for command in ("verify", "batch-inference"):
            done = lodestar(command, "--run-id", victim.run_id, cwd=victim.project)
            done.refused(6, word)
    assert not (victim.project / "outputs").exists()


class Marker:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> "tuple[Callable[..., object], tuple[str, str]]":
        return open, (str(self.path), "w")


def test_nothing_is_unpickled_before_the_digest_is_checked(
    lodestar: Lodestar, victim: Trained, tmp_path: Path
) -> None:
    marker = tmp_path / "unpickled"
    pickled = pickle.dumps(Marker(marker))
    with restored(victim.artifact, tmp_path / "aside"):
        (victim.artifact / "lodestar/components/model.pkl").write_bytes(pickled)
        for command in ("verify", "evaluate", "batch-inference"):
            lodestar(command, "--run-id", victim.run_id, cwd=victim.project).refused(6, "model.pkl")
        # Plain MLflow runs our entry.py, which verifies as well.
        load = f"import mlflow; mlflow.pyfunc.load_model({str(victim.artifact)!r})"
        done = subprocess.run(
            [sys.executable, "-c", load], capture_output=True, text=True, check=False
        )
        assert "model.pkl is not what was recorded" in done.stderr
    assert not marker.exists()
    pickle.loads(pickled).close()
    assert marker.exists()  # the injector works


def changed_contents(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change what an artifact knows about itself, as another installation would have written it."""
    path = folder / "lodestar/contents.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    change(contents)
    path.write_text(json.dumps(contents), encoding="utf-8")
    write_manifest(folder)


@pytest.mark.parametrize(
    ("version", "hint"), [(2, "upgrade lodestar-ml"), (0, "train again"), ("x", "train again")]
)
def test_another_format_version_is_named(
    victim: Trained, tmp_path: Path, version: object, hint: str
) -> None:
    folder = shutil.copytree(victim.artifact, tmp_path / "copy")
    changed_contents(folder, lambda contents: contents.update(format_version=version))
    with pytest.raises(ArtifactError, match=f"format version {version}") as caught:
        load_wrapper(folder)
    assert caught.value.hint == hint


def locked(**versions: str) -> Callable[[dict[str, object]], None]:
    def change(contents: dict[str, object]) -> None:
        lock = contents["lock"]
        assert isinstance(lock, dict)
        lock["direct"].update(versions)

    return change


def test_another_minor_version_warns_and_another_major_one_refuses(
    victim: Trained, tmp_path: Path
) -> None:
    import numpy as np

    major = int(np.__version__.split(".")[0])
    folder = shutil.copytree(victim.artifact, tmp_path / "copy")
    changed_contents(folder, locked(numpy=f"{major}.0.1"))
    _, warnings = load_wrapper(folder)
    assert any("numpy" in warning and f"{major}.0.1" in warning for warning in warnings)
    changed_contents(folder, locked(numpy=f"{major + 1}.0.0"))
    with pytest.raises(ArtifactError, match="numpy"):
        load_wrapper(folder)
    changed_contents(folder, locked(numpy=np.__version__, nosuchpackage="1.0"))
    with pytest.raises(ArtifactError, match=r"nosuchpackage 1\.0 is not installed"):
        load_wrapper(folder)


def test_a_probe_that_predicts_otherwise_is_refused(victim: Trained, tmp_path: Path) -> None:
    from pyarrow import feather

    folder = shutil.copytree(victim.artifact, tmp_path / "copy")
    path = folder / "lodestar/probe_predictions.arrow"
    table = feather.read_table(path, memory_map=False)
    name = next(name for name in table.column_names if name.startswith("probability"))
    place = table.column_names.index(name)
    nudged = [value + 1e-3 for value in table.column(name).to_pylist()]
    feather.write_feather(table.set_column(place, name, [nudged]), path, compression="uncompressed")
    write_manifest(folder)
    with pytest.raises(ArtifactError, match=f"the probe failed: {name}"):
        load_wrapper(folder)


def test_an_artifact_of_format_1_always_loads(tmp_path: Path, sample_project: Path) -> None:
    """Kept for ever; `make_artifact.py` beside it made it. Versions that differ only warn."""
    if not pd.__version__.startswith("3."):
        pytest.skip("the artifact was made with pandas 3, and another major version is refused")
    kept = Path(__file__).parents[1] / "fixtures" / "artifact-v1.tar.gz"
    shutil.unpack_archive(kept, tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    wrapper, _ = load_wrapper(folder, digest=folder.name)
    rows = pq.read_table(sample_project / "data/wine.parquet").to_pandas()
    predicted = wrapper.predict(rows)
    assert isinstance(predicted, pd.DataFrame)
    right = predicted["prediction"].to_numpy() == rows["cultivar"].to_numpy()
    assert right.mean() > 0.95
