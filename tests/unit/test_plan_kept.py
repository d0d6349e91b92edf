"""A proven plan as a file: used only where it says what the artifact says, and whole or not at all."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.planning import TREES, XGB_BINARY, XGB_VALUE, Model, artifact, scored_bits

from lodestar.core.trees.forest import NotPlannedError
from lodestar.serving.plan import keep_plan, kept_scorer

DIGEST = "a1b2"
CHECKSUM = 64


def kept(model: Model, path: Path, *, criterion: str | None = None) -> None:
    served = artifact(*model, criterion)
    keep_plan(served.wrapper, served.probe, path, digest=DIGEST, native=True)


@pytest.mark.parametrize("model", TREES)
@pytest.mark.parametrize("criterion", [None, "member", "step"])
def test_a_kept_plan_says_the_same_bits(
    model: Model, criterion: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "plan"
    served = artifact(*model, criterion)
    kept(model, path, criterion=criterion)
    scorer = kept_scorer(served.wrapper.contents, path, digest=DIGEST)
    assert scorer.name == "native"
    assert scored_bits(scorer, served.rows) == served.bits(served.rows)
    assert list(tmp_path.iterdir()) == [path]


def test_a_plan_that_is_not_native_is_not_kept_and_a_former_one_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    kept(XGB_BINARY, path)
    served = artifact(*XGB_BINARY)
    scorer = keep_plan(served.wrapper, served.probe, path, digest=DIGEST, native=False)
    assert scorer.name == "numpy"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotPlannedError, match="no plan was kept"):
        kept_scorer(served.wrapper.contents, path, digest=DIGEST)


def test_a_plan_of_another_artifact_is_refused(tmp_path: Path) -> None:
    kept(XGB_VALUE, tmp_path / "plan")
    contents = artifact(*XGB_VALUE).wrapper.contents
    with pytest.raises(NotPlannedError, match="of another artifact"):
        kept_scorer(contents, tmp_path / "plan", digest="c3d4")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: b"",
        lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
    ],
)
def test_a_damaged_plan_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "plan"
    kept(XGB_VALUE, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NotPlannedError, match="damaged"):
        kept_scorer(artifact(*XGB_VALUE).wrapper.contents, path, digest=DIGEST)


def written_anew(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change what stands in the file, with a checksum that fits."""
    value = msgspec.msgpack.decode(path.read_bytes()[CHECKSUM:])
    change(value)
    data = msgspec.msgpack.encode(value)
    path.write_bytes(hashlib.sha256(data).hexdigest().encode() + data)


def flipped(values: bytes, at: int) -> bytes:
    return values[:at] + bytes([values[at] ^ 1]) + values[at + 1 :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["made_by"].update(numpy="0.1"), "other versions or on another machine"),
        (lambda v: v["made_by"].update(libc="musl 1.2"), "other versions or on another machine"),
        (lambda v: v.pop("says"), "of another Lodestar"),
        (lambda v: v.update(says="a song"), "of another Lodestar"),
        (lambda v: v["forest"].update(base=flipped(v["forest"]["base"], 0)), "something else here"),
        (lambda v: v["scaler"]["columns"].reverse(), "something else here"),
        (lambda v: v["scaler"]["columns"].pop(), "do not belong together"),
        (lambda v: v["forest"].update(nodes=b"12345"), "damaged"),
        (lambda v: v["forest"].update(nodes=v["forest"]["nodes"][:-8]), "out of their arrays"),
    ],
)
def test_a_plan_that_says_something_else_is_refused(
    change: Callable[[dict[str, object]], object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan"
    kept(XGB_VALUE, path)
    written_anew(path, change)
    with pytest.raises(NotPlannedError, match=words):
        kept_scorer(artifact(*XGB_VALUE).wrapper.contents, path, digest=DIGEST)


def test_a_plan_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    with pytest.raises(OSError, match="plan"):
        kept(XGB_VALUE, tmp_path / "plan")
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
    with pytest.raises(NotPlannedError, match="cannot be read"):
        kept_scorer(artifact(*XGB_VALUE).wrapper.contents, tmp_path / "plan", digest=DIGEST)
