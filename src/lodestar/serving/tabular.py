"""Rows of other protocols, all answered or none: those protocols have no place for a row's own error."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lodestar.serving.fleet import Fleet, Lane
from lodestar.serving.problems import FieldProblem, ProblemError
from lodestar.serving.scoring import Row
from lodestar.serving.version import RowAnswer

__all__ = ["answered", "prediction_record"]

MOST_PROBLEMS = 20


async def answered(
    fleet: Fleet, records: Sequence[Mapping[str, Any]], *, most: int
) -> list[tuple[Lane, RowAnswer]]:
    """Answer records of plain values, in order.

    Raises:
        ProblemError: a record that cannot be answered, with its number; 413 for more than `most`.
    """
    if len(records) > most:
        raise ProblemError(
            413,
            "too-many-rows",
            f"At most {most:,} rows are taken, and these are {len(records):,}.",
        )
    request = fleet.champion.version.request
    rows: list[Row] = []
    problems: list[tuple[int, ProblemError]] = []
    for number, record in enumerate(records):
        try:
            rows.append(request.of_mapping(record))
        except ProblemError as problem:
            problems.append((number, problem))
    if problems:
        raise _together(problems)
    replies = await fleet.ask_all(rows)
    failed = [
        (number, reply)
        for number, (_, reply) in enumerate(replies)
        if isinstance(reply, ProblemError)
    ]
    if failed:
        raise _together(failed)
    return [(lane, reply) for lane, reply in replies if isinstance(reply, RowAnswer)]


def prediction_record(answer: RowAnswer) -> dict[str, Any]:
    """As batch scoring writes it: `prediction`, and `probability_<label>` for each class."""
    shares = answer.probabilities or {}
    return {
        "prediction": answer.prediction,
        **{f"probability_{label}": share for label, share in shares.items()},
    }


def _together(problems: Sequence[tuple[int, ProblemError]]) -> ProblemError:
    """The first problem's status and words, with the fields of all."""
    _, first = problems[0]
    fields = [
        replace(field, row=number)
        for number, problem in problems
        for field in problem.fields or (FieldProblem("", problem.detail),)
    ]
    return ProblemError(
        first.status,
        first.kind,
        first.detail,
        fields=fields[:MOST_PROBLEMS],
        headers=first.headers,
    )
