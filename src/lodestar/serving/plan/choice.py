"""Chooses how rows are scored: in machine code, else with numpy, else as the artifact does it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.trees.forest import NotPlannedError
from lodestar.core.trees.libraries import is_planned
from lodestar.schema import FrameSchema
from lodestar.serving.plan.arrays import ArrayScorer
from lodestar.serving.plan.encoding import Encoder, encoder_of, plain_values
from lodestar.serving.plan.examples import Example, examples
from lodestar.serving.plan.generic import GenericScorer
from lodestar.serving.plan.native import NativeScorer
from lodestar.serving.plan.proof import FEW, MANY, Answer, Proof
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import Row, RowScorer

__all__ = ["Choice", "choose", "proven_scorer", "row_scorer", "rows_of"]

# How many random rows are compared, where the estimator is quick and where it is not.
MANY_ROWS, FEW_ROWS = 2_000, 200


def row_scorer(wrapper: PyfuncWrapper, probe: pa.Table, *, native: bool) -> RowScorer:
    """The fastest scorer that is bitwise equal to `wrapper.score`; its `reason` says why no faster one.

    `probe` are the artifact's probe rows; with `native` False nothing is compiled. Equal means the same
    predictions, probabilities, counts of unknown categories and errors, on the probe rows and on
    thousands of made ones (`examples`), in batches of several sizes.
    """
    return choose(wrapper, probe, native=native).scorer


@dataclass(frozen=True)
class Choice:
    """The scorer, and the artifact's own answers that it was compared with (none for `generic`)."""

    scorer: RowScorer
    answers: Sequence[Answer] = ()


def choose(wrapper: PyfuncWrapper, probe: pa.Table, *, native: bool) -> Choice:
    """As `row_scorer`; also says what it was compared with."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

    # Two threads for a few rows wait for each other; on a busy machine that takes most of the time.
    with threadpool_limits(1, user_api="openmp"):
        return _chosen(wrapper, probe, native=native)


def _chosen(wrapper: PyfuncWrapper, probe: pa.Table, *, native: bool) -> Choice:
    schema = wrapper.contents.feature_schema
    try:
        encoder = _encoder(wrapper)
    except NotPlannedError as why:
        return Choice(GenericScorer(wrapper, RowCheck(schema), reason=f"numpy: {why}"))
    check = RowCheck(schema, encoder)
    reasons: list[str] = []
    compiled = _compiled(wrapper, encoder, check, reasons) if native else None
    if not native:
        reasons.append("native: switched off")
    quick = is_planned(wrapper.fitted)
    forest = compiled.model.forest if compiled else None
    rows = examples(schema, encoder, probe, forest=forest, drawn=MANY_ROWS if quick else FEW_ROWS)
    proof = Proof(wrapper, rows, check, sizes=MANY if quick else FEW)
    in_vain = proof.refused_in_vain()
    if in_vain:
        return Choice(GenericScorer(wrapper, RowCheck(schema), reason=f"numpy: {in_vain}"))
    for scorer in _candidates(wrapper, encoder, check, compiled):
        difference = proof.difference(scorer)
        if not difference:
            scorer.reason = "; ".join(reasons)
            return Choice(scorer, proof.answers)
        reasons.append(f"{scorer.name}: {difference}")
    return Choice(GenericScorer(wrapper, check, reason="; ".join(reasons)))


def proven_scorer(wrapper: PyfuncWrapper, probe: pa.Table, *, name: str, reason: str) -> RowScorer:
    """The scorer that `row_scorer` chose in another process of this machine, without its thousand rows.

    Only the probe rows are compared here. Where it cannot be made as it was there, `row_scorer` chooses.
    """
    schema = wrapper.contents.feature_schema
    if name == GenericScorer.name:
        return GenericScorer(wrapper, RowCheck(schema), reason=reason)
    try:
        encoder = _encoder(wrapper)
    except NotPlannedError:  # what it depends on is in the artifact, and so is no other there
        return row_scorer(wrapper, probe, native=False)
    check = RowCheck(schema, encoder)
    compiled = _compiled(wrapper, encoder, check, []) if name == NativeScorer.name else None
    rows = [Example("a probe row", row) for row in rows_of(schema, probe)]
    for scorer in _candidates(wrapper, encoder, check, compiled):
        if scorer.name == name and not Proof(wrapper, rows, check).difference(scorer):
            scorer.reason = reason
            return scorer
    return row_scorer(wrapper, probe, native=name == NativeScorer.name)


def rows_of(schema: FrameSchema, table: pa.Table) -> list[Row]:
    """A table's rows as they are scored."""
    columns = [plain_values(table.column(name)) for name in schema.names]
    return list(zip(*columns, strict=True))


def _encoder(wrapper: PyfuncWrapper) -> Encoder:
    preprocessor = wrapper.fitted.preprocessor
    if not isinstance(preprocessor, SimpleScaler):
        raise NotPlannedError("the preprocessor is no SimpleScaler: it takes pandas frames")
    return encoder_of(preprocessor, wrapper.contents.feature_schema, wrapper.fitted.family.dtype)


def _compiled(
    wrapper: PyfuncWrapper, encoder: Encoder, check: RowCheck, reasons: list[str]
) -> NativeScorer | None:
    try:
        return NativeScorer.of(wrapper.fitted, encoder, check)
    except NotPlannedError as why:
        reasons.append(f"native: {why}")
        return None


def _candidates(
    wrapper: PyfuncWrapper, encoder: Encoder, check: RowCheck, compiled: NativeScorer | None
) -> Iterator[NativeScorer | ArrayScorer]:
    """From the fastest on; one that is not needed is not made."""
    if compiled is not None:
        yield compiled
    yield ArrayScorer(wrapper.fitted, encoder, check)
