"""How trials are marked in all of the search's figures: the chosen one, finalists, complete, pruned."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from lodestar.core.tuning.result import TrialRecord
from lodestar.report import wording
from lodestar.report.plots import Spec, escaped, floats
from lodestar.report.search_story import Dimension, Story, last, reach, shown, spread_out

__all__ = ["DIGITS", "cut", "marked", "polylines", "span", "whole"]

DIGITS = 7
# Drawing more than this tells no more, and makes the page large and slow.
MOST_DOTS = 500
MOST_DOTS_OF_SLICES = 1600
FEWEST_DOTS = 100
MOST_DESCRIBED = 200
FEW_TICKS = 12
LONGEST_LABEL = 17
ROOM_FOR_PRUNED = 0.5
JITTER = 0.36
GOLDEN = 0.618034

MARKERS: Mapping[str, Spec] = MappingProxyType(
    {
        "complete": {"color": "--c1", "size": 6, "opacity": 0.5},
        "pruned": {
            "symbol": "x-thin",
            "size": 6,
            "color": "--faint",
            "line": {"width": 1.5, "color": "--faint"},
        },
        "finalist": {
            "symbol": "circle-open",
            "color": "--c1",
            "size": 11,
            "line": {"width": 1.75, "color": "--c1"},
        },
        "chosen": {"symbol": "star", "color": "--c2", "size": 13},
    }
)

GAP = (math.nan, math.nan)


def marked(story: Story, dimension: Dimension | None = None) -> tuple[Spec, ...]:
    """All trials at their values, over their numbers or over one hyperparameter."""
    most = MOST_DOTS
    if dimension is not None:
        most = max(FEWEST_DOTS, MOST_DOTS_OF_SLICES // len(story.dimensions))
    groups = {
        "complete": spread_out(story.complete, most),
        "pruned": spread_out(story.pruned, most),
        "finalist": story.others,
        "chosen": story.chosen,
    }
    make = _over_numbers if dimension is None else partial(_over, dimension)
    ends = span(story)
    return tuple(
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "y": floats((_within(last(each), ends) for each in records), digits=DIGITS),
            "marker": dict(MARKERS[name]),
            "cliponaxis": False,
            **make(name, records),
        }
        for name, records in groups.items()
        if records
    )


def polylines(
    name: str, numbers: Sequence[int], lines: Sequence[Sequence[tuple[float, float]]], style: Spec
) -> Spec:
    """Many trials' lines as one trace, with gaps between them: quick to draw, however many."""
    points = [point for line in lines for point in (*line, GAP)][:-1]
    owners = [n for n, line in zip(numbers, lines, strict=True) for _ in range(len(line) + 1)][:-1]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": floats(x for x, _ in points),
        "y": floats((y for _, y in points), digits=DIGITS),
        "customdata": owners,
        "line": style,
        "hovertemplate": f"trial %{{customdata}}, {name}<br><b>%{{y:.5~g}}</b><extra></extra>",
    }


def span(story: Story) -> tuple[float, float]:
    """The ends of the axis of values: what is far worse than the complete trials is at the edge."""
    values = [last(record) for record in story.complete]
    low, high = reach([*values, story.tuning.best_score], maximize=story.maximize)
    pruned = [last(record) for record in story.pruned]
    if pruned and story.maximize:
        low = max(min(low, *pruned), low - ROOM_FOR_PRUNED * (high - low))
    elif pruned:
        high = min(max(high, *pruned), high + ROOM_FOR_PRUNED * (high - low))
    return low, high


def whole(many: int) -> Spec:
    """Ticks of an axis that counts."""
    return {"tickformat": "d"} | ({"dtick": 1} if many <= FEW_TICKS else {})


def cut(text: str) -> str:
    """A label that has room, as plotly shows it."""
    short = (
        text
        if len(text) <= LONGEST_LABEL
        else f"{text[: LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
    )
    return escaped(short)


def _over_numbers(name: str, records: Sequence[TrialRecord]) -> Spec:
    """Pointing at a mark tells the trial's hyperparameters, where that is not too much."""
    described = len(records) <= MOST_DESCRIBED
    words = [
        f"trial {each.number}, {name}<br><b>{wording.number(last(each))}</b>"
        + ("".join(_params(each)) if described else "")
        for each in records
    ]
    return {
        "x": [each.number for each in records],
        "text": words,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _params(record: TrialRecord) -> Iterator[str]:
    for name, value in record.params.items():
        yield f"<br>{escaped(name)} {escaped(shown(value))}"


def _over(dimension: Dimension, name: str, records: Sequence[TrialRecord]) -> Spec:
    value = "" if dimension.choices else "<br>%{x:.4~g}"
    return {
        "x": floats(_place(each, dimension) for each in records),
        "customdata": [each.number for each in records],
        "hovertemplate": f"trial %{{customdata}}, {name}{value}<extra></extra>",
    }


def _place(record: TrialRecord, dimension: Dimension) -> float:
    place = dimension.at(record.params.get(dimension.name))
    if place is None:
        return math.nan
    # Trials of one category would hide each other: they are moved apart, always in the same way.
    aside = JITTER * (record.number * GOLDEN % 1 - 0.5) if dimension.choices else 0.0
    return place + aside


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, ends[0]), ends[1])
