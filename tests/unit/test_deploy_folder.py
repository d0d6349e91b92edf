"""Rendered files replace what was rendered, and nothing else."""

from pathlib import Path

import pytest

from lodestar.deploy.folder import RECORD, write_files
from lodestar.errors import ExternalError, UsageError

FILES = {"a.yaml": b"one", "image/b.txt": b"two"}


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    first = write_files(tmp_path / "out", FILES, force=False)
    assert (first.files, first.changed) == (("a.yaml", "image/b.txt"), 2)
    again = write_files(tmp_path / "out", FILES, force=False)
    assert (again.files, again.changed) == (first.files, 0)


def test_another_rendering_replaces_and_removes_what_nobody_changed(tmp_path: Path) -> None:
    write_files(tmp_path, FILES, force=False)
    source = tmp_path.parent / "copied"
    source.write_bytes(b"three")
    written = write_files(tmp_path, {"a.yaml": source}, force=False)
    assert written.changed == 1
    assert (tmp_path / "a.yaml").read_bytes() == b"three"
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "a.yaml"]


def test_a_file_that_was_changed_is_not_written_over(tmp_path: Path) -> None:
    write_files(tmp_path, FILES, force=False)
    (tmp_path / "image/b.txt").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"changed since they were rendered: image/b\.txt"):
        write_files(tmp_path, {**FILES, "a.yaml": b"new"}, force=False)
    assert (tmp_path / "a.yaml").read_bytes() == b"one"
    with pytest.raises(UsageError, match="changed since"):
        write_files(tmp_path, {"a.yaml": b"one"}, force=False)
    assert (tmp_path / "image/b.txt").read_bytes() == b"mine"
    write_files(tmp_path, FILES, force=True)
    assert (tmp_path / "image/b.txt").read_bytes() == b"two"


def test_a_change_that_the_next_rendering_makes_too_is_none(tmp_path: Path) -> None:
    write_files(tmp_path, FILES, force=False)
    (tmp_path / "a.yaml").write_bytes(b"new")
    assert write_files(tmp_path, {**FILES, "a.yaml": b"new"}, force=False).changed == 0


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="is not empty"):
        write_files(tmp_path, FILES, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    write_files(tmp_path, FILES, force=True)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_record_removes_nothing_outside_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"one")
    out = tmp_path / "out"
    write_files(out, FILES, force=False)
    record = (out / RECORD).read_text(encoding="utf-8")
    (out / RECORD).write_text(record.replace('"a.yaml"', '"../outside.txt"'), encoding="utf-8")
    write_files(out, FILES, force=False)
    assert outside.read_bytes() == b"one"


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    write_files(tmp_path, FILES, force=False)
    (tmp_path / RECORD).write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be read"):
        write_files(tmp_path, FILES, force=False)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.write_text("a file", encoding="utf-8")
    with pytest.raises(UsageError, match="is not empty"):
        write_files(place, FILES, force=False)
    with pytest.raises(ExternalError, match="cannot be written"):
        write_files(place, FILES, force=True)
