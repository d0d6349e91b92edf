"""The manifest: whatever was done to an artifact's files, the file is named before it is opened."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lodestar.artifact.manifest import MANIFEST, digest_of, verify, write_manifest
from lodestar.errors import ArtifactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for name, content in {
        "MLmodel": b"flavors: {}",
        "lodestar/contents.json": b"{}",
        "lodestar/components/model.ubj": bytes(range(256)),
        "code/team/models.py": b"class A: pass",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    write_manifest(root)
    return root


def change_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_untouched_artifact_is_verified_by_its_digest(folder: Path) -> None:
    assert verify(folder) == digest_of(folder)
    assert verify(folder, expected=digest_of(folder)) == digest_of(folder)


def test_equal_files_have_equal_digests(folder: Path) -> None:
    before = digest_of(folder)
    assert write_manifest(folder) == before
    change_a_bit(folder / "MLmodel")
    assert write_manifest(folder) != before


@pytest.mark.parametrize(
    "name",
    ["MLmodel", "lodestar/contents.json", "lodestar/components/model.ubj", "code/team/models.py"],
)
def test_one_changed_bit_anywhere_is_found(folder: Path, name: str) -> None:
    change_a_bit(folder / name)
    with pytest.raises(ArtifactError, match=f"{name} is not what was recorded") as caught:
        verify(folder)
    assert caught.value.exit_code == 6


def by_link(path: Path) -> None:
    path.rename(path.parent.parent / "aside")
    path.symlink_to("../aside")


def by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


TAMPERING: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda f: (f / "MLmodel").write_bytes(b"flav"), "MLmodel is not what was recorded"),
    "emptied": (lambda f: (f / "MLmodel").write_bytes(b""), "MLmodel is not what was recorded"),
    "removed": (lambda f: (f / "MLmodel").unlink(), "MLmodel is missing"),
    "added": (
        lambda f: (f / "code/evil.py").write_text("x"),
        "code/evil.py is not in its manifest",
    ),
    "added hidden": (lambda f: (f / ".evil").write_text("x"), ".evil is not in its manifest"),
    "added bytecode": (
        lambda f: (f / "code/team/models.pyc").write_bytes(b"x"),
        "code/team/models.pyc is not in its manifest",
    ),
    "moved": (lambda f: (f / "MLmodel").rename(f / "MLmodel2"), "MLmodel is missing"),
    "linked file": (
        lambda f: (f / "link").symlink_to("/etc/passwd"),
        "link is a link",
    ),
    "linked folder": (lambda f: (f / "code/more").symlink_to("/etc"), "code/more is a link"),
    "replaced by a link to itself": (lambda f: by_link(f / "MLmodel"), "MLmodel is a link"),
    "replaced by a pipe": (lambda f: by_pipe(f / "MLmodel"), "MLmodel is no plain file"),
    "replaced by a folder": (lambda f: by_folder(f / "MLmodel"), "MLmodel is missing"),
    "manifest removed": (lambda f: (f / MANIFEST).unlink(), f"has no {MANIFEST}"),
    "manifest linked": (lambda f: by_link(f / MANIFEST), MANIFEST),
    "manifest of nonsense": (lambda f: (f / MANIFEST).write_bytes(b"\xff{"), "cannot be read"),
    "manifest of a list": (lambda f: (f / MANIFEST).write_text("[]"), "cannot be read"),
    "manifest of nothing": (lambda f: (f / MANIFEST).write_text("{}"), "cannot be read"),
}


@pytest.mark.parametrize(("tamper", "words"), TAMPERING.values(), ids=TAMPERING.keys())
def test_every_kind_of_tampering_is_found_and_the_file_named(
    folder: Path, tamper: Callable[[Path], object], words: str
) -> None:
    tamper(folder)
    with pytest.raises(ArtifactError) as caught:
        verify(folder)
    assert words in str(caught.value)


def test_a_manifest_that_was_made_to_fit_is_found_by_the_runs_digest(folder: Path) -> None:
    recorded = digest_of(folder)
    change_a_bit(folder / "MLmodel")
    write_manifest(folder)
    verify(folder)
    with pytest.raises(ArtifactError, match="is not the one that the run recorded"):
        verify(folder, expected=recorded)


def test_a_manifest_of_a_later_version_says_what_to_do(folder: Path) -> None:
    text = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**text, "manifest_version": 99}))
    with pytest.raises(ArtifactError, match="has version 99") as caught:
        verify(folder)
    assert "upgrade" in str(caught.value)


def test_bytecode_caches_are_neither_listed_nor_in_the_way(folder: Path) -> None:
    (folder / "code/team/__pycache__").mkdir()
    (folder / "code/team/__pycache__/models.cpython-311.pyc").write_bytes(b"anything")
    before = digest_of(folder)
    assert verify(folder, expected=before) == before
    assert write_manifest(folder) == before


def test_ignored_files_may_be_there_or_not(folder: Path) -> None:
    ignored = frozenset({"registered_model_meta"})
    verify(folder, ignored=ignored)
    (folder / "registered_model_meta").write_text("x")
    verify(folder, ignored=ignored)
    with pytest.raises(ArtifactError, match="registered_model_meta is not in its manifest"):
        verify(folder)
