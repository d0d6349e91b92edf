"""A proven native plan as a file: another process scores with it and imports no model library.

XGBoost, LightGBM and causalml bring scikit-learn, scipy and pandas along: two seconds and 150 MB and
more that scoring does not need. So one process loads the artifact, chooses and keeps; the others read.
With the plan, the artifact's own answers are kept: whoever reads compiles the plan and compares all of
them again, bit by bit, before it is used.
"""

import hashlib
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.trees.forest import Forest, Link, NotPlannedError, node_type
from lodestar.core.trees.libraries import NativeModel
from lodestar.core.trees.libraries.base import Says
from lodestar.serving.plan.choice import choose
from lodestar.serving.plan.encoding import encoder_of
from lodestar.serving.plan.examples import Example
from lodestar.serving.plan.native import NativeScorer
from lodestar.serving.plan.proof import Answer, Outcome, difference
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import RowScorer

__all__ = ["keep_plan", "kept_scorer"]

# Their versions decide what the artifact's own answers are, and how the plan is compiled.
PACKAGES = ("lodestar-ml", "numpy", "pyarrow", "llvmlite", "xgboost", "lightgbm", "causalml")
CHECKSUM = 64


class _Kept(msgspec.Struct, frozen=True):
    """What stands in the file."""

    digest: str
    made_by: dict[str, str]
    scaler: dict[str, Any]
    groups: list[tuple[str | int | bool, int]]
    stored: str
    says: Says
    forest: "_KeptForest"
    rows: list[tuple[str, list[Any]]]
    answers: list["_KeptAnswer"]


class _KeptForest(msgspec.Struct, frozen=True):
    """A forest's arrays as bytes."""

    dtype: str
    nodes: bytes
    roots: bytes
    depths: bytes
    targets: bytes
    base: bytes
    width: int
    strict: bool
    link: Link
    slope: float


class _KeptAnswer(msgspec.Struct, frozen=True):
    """Which rows were asked together, and what the artifact said."""

    rows: list[int]
    columns: dict[str, tuple[str, bytes]]
    unknown: dict[str, int]
    error: str


def keep_plan(
    wrapper: PyfuncWrapper, probe: pa.Table, path: Path, *, digest: str, native: bool
) -> RowScorer:
    """Choose a scorer as `row_scorer` does, and keep it in a file if it is the native one.

    `digest` is the artifact's. The file appears whole or not at all; one that stood there is replaced,
    or removed where there is nothing to keep.
    """
    choice = choose(wrapper, probe, native=native)
    if isinstance(choice.scorer, NativeScorer):
        _write(path, _kept(wrapper, choice.scorer, choice.answers, digest))
    else:
        path.unlink(missing_ok=True)
    return choice.scorer


def kept_scorer(contents: ArtifactContents, path: Path, *, digest: str) -> RowScorer:
    """The scorer that `keep_plan` kept for an artifact, compared with its answers again.

    The artifact has to be verified by then; its estimator is not loaded.

    Raises:
        NotPlannedError: there is none, it is of another artifact, machine or version, it is damaged, or
            it says something else here. Load the artifact and choose anew.
    """
    kept = _read(path)
    if kept.digest != digest:
        raise NotPlannedError("the kept plan is of another artifact")
    if kept.made_by != _here():
        raise NotPlannedError("the kept plan was made by other versions or on another machine")
    forest = _forest_of(kept.forest)
    forest.check_bounds()
    stored = np.float32 if kept.stored == "float32" else np.float64
    scaler, schema = SimpleScaler.from_json(kept.scaler), contents.feature_schema
    encoder = encoder_of(scaler, schema, stored, groups=dict(kept.groups))
    if encoder.width != forest.width:
        raise NotPlannedError("the kept plan's scaler and trees do not belong together")
    check = RowCheck(schema, encoder)
    model = NativeModel(forest, kept.says)
    scorer = NativeScorer(model, contents.target.classes, encoder, check)
    found = difference(scorer, _answers_of(kept))
    if found is not None:
        raise NotPlannedError(f"the kept plan says something else here: {found.what}")
    return scorer


def _kept(
    wrapper: PyfuncWrapper, scorer: NativeScorer, answers: Sequence[Answer], digest: str
) -> _Kept:
    scaler, forest = wrapper.fitted.preprocessor, scorer.model.forest
    if not isinstance(scaler, SimpleScaler):
        raise TypeError(type(scaler).__name__)
    places: dict[int, int] = {}
    rows: list[tuple[str, list[Any]]] = []
    for answer in answers:
        for item in answer.batch:
            if id(item) not in places:
                places[id(item)] = len(rows)
                rows.append((item.name, list(item.row)))
    return _Kept(
        digest=digest,
        made_by=_here(),
        scaler=scaler.to_json(),
        groups=list(scorer.encoder.groups.items()),
        stored=np.dtype(wrapper.fitted.family.dtype).name,
        says=scorer.model.says,
        forest=_KeptForest(
            dtype=forest.base.dtype.name,
            nodes=forest.nodes.tobytes(),
            roots=forest.roots.tobytes(),
            depths=forest.depths.tobytes(),
            targets=forest.targets.tobytes(),
            base=forest.base.tobytes(),
            width=forest.width,
            strict=forest.strict,
            link=forest.link,
            slope=forest.slope,
        ),
        rows=rows,
        answers=[
            _KeptAnswer(
                rows=[places[id(item)] for item in answer.batch],
                columns=dict(answer.outcome.columns),
                unknown=dict(answer.outcome.unknown),
                error=answer.outcome.error,
            )
            for answer in answers
        ],
    )


def _forest_of(kept: _KeptForest) -> Forest:
    dtype = np.float32 if kept.dtype == "float32" else np.float64
    try:
        return Forest(
            nodes=np.frombuffer(kept.nodes, node_type(dtype)),
            roots=np.frombuffer(kept.roots, np.int64),
            depths=np.frombuffer(kept.depths, np.int64),
            targets=np.frombuffer(kept.targets, np.int64),
            base=np.frombuffer(kept.base, dtype),
            width=kept.width,
            strict=kept.strict,
            link=kept.link,
            slope=kept.slope,
        )
    except ValueError as error:
        raise NotPlannedError("the kept plan's arrays are damaged") from error


def _answers_of(kept: _Kept) -> list[Answer]:
    examples = [Example(name, row) for name, row in kept.rows]
    return [
        Answer(
            [examples[at] for at in answer.rows],
            Outcome(answer.columns, answer.unknown, answer.error),
        )
        for answer in kept.answers
    ]


def _here() -> dict[str, str]:
    """What the artifact's answers may depend on, beyond the artifact."""
    machine = {"machine": platform.machine(), "libc": " ".join(platform.libc_ver())}
    return machine | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _write(path: Path, kept: _Kept) -> None:
    data = msgspec.msgpack.encode(kept)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(hashlib.sha256(data).hexdigest().encode() + data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def _read(path: Path) -> _Kept:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotPlannedError("no plan was kept") from error
    except OSError as error:
        raise NotPlannedError(f"the kept plan cannot be read: {error.strerror}") from error
    checksum, body = data[:CHECKSUM], data[CHECKSUM:]
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise NotPlannedError("the kept plan is damaged")
    try:
        return msgspec.msgpack.decode(body, type=_Kept)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise NotPlannedError("the kept plan is of another Lodestar") from error
