"""Chooses how rows are scored: in machine code, else with numpy, else as the artifact does it."""

from collections.abc import Iterator

import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.preprocessor import SimpleScaler
from lodestar.serving.plan.arrays import ArrayScorer
from lodestar.serving.plan.encoding import Encoder, encoder_of
from lodestar.serving.plan.examples import examples
from lodestar.serving.plan.forest import NotPlannedError
from lodestar.serving.plan.generic import GenericScorer
from lodestar.serving.plan.native import NativeScorer
from lodestar.serving.plan.proof import Proof
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import RowScorer

__all__ = ["row_scorer"]


def row_scorer(wrapper: PyfuncWrapper, probe: pa.Table, *, native: bool) -> RowScorer:
    """The fastest scorer that is bitwise equal to `wrapper.score`; its `reason` says why no faster one.

    `probe` are the artifact's probe rows; with `native` False nothing is compiled. Equal means the same
    predictions, probabilities, counts of unknown categories and errors, on the probe rows and on
    thousands of made ones (`examples`), in batches of several sizes.
    """
    schema = wrapper.contents.feature_schema
    try:
        encoder = _encoder(wrapper)
    except NotPlannedError as why:
        return GenericScorer(wrapper, RowCheck(schema), reason=f"numpy: {why}")
    check = RowCheck(schema, encoder)
    reasons: list[str] = []
    compiled = _compiled(wrapper, encoder, check, reasons) if native else None
    if not native:
        reasons.append("native: switched off")
    rows = examples(schema, encoder, probe, compiled.forest if compiled else None)
    proof = Proof(wrapper, rows, check)
    in_vain = proof.refused_in_vain()
    if in_vain:
        return GenericScorer(wrapper, RowCheck(schema), reason=f"numpy: {in_vain}")
    for scorer in _candidates(wrapper, encoder, check, compiled):
        difference = proof.difference(scorer)
        if not difference:
            scorer.reason = "; ".join(reasons)
            return scorer
        reasons.append(f"{scorer.name}: {difference}")
    return GenericScorer(wrapper, check, reason="; ".join(reasons))


def _encoder(wrapper: PyfuncWrapper) -> Encoder:
    preprocessor = wrapper.fitted.preprocessor
    if not isinstance(preprocessor, SimpleScaler):
        raise NotPlannedError("the preprocessor is no SimpleScaler: it takes pandas frames")
    return encoder_of(preprocessor, wrapper.contents.feature_schema, wrapper.fitted.family.dtype)


def _compiled(
    wrapper: PyfuncWrapper, encoder: Encoder, check: RowCheck, reasons: list[str]
) -> NativeScorer | None:
    try:
        return NativeScorer(wrapper.fitted, encoder, check)
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
