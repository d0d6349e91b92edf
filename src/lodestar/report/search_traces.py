"""How trials are marked in all of the search's figures: the chosen one, finalists, complete, pruned."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lodestar.core.tuning.result import TrialRecord
from lodestar.report.plots import Spec, escaped, floats
from lodestar.report.search_story import Dimension, Story, last, reach, shown, spread_out

__all__ = ["DIGITS", "cut", "dots", "marked", "polylines", "span", "whole"]

DIGITS = 7
# Drawing more than this tells no more, and makes the page large and slow.
MOST_DOTS = 1000
MOST_DESCRIBED = 300
FEW_TICKS = 12
LONGEST_LABEL = 17
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

Gap = tuple[float, float]
GAP: Gap = (math.nan, math.nan)


def marked(story: Story, dimension: Dimension | None = None) -> tuple[Spec, ...]:
    """All trials at their values, over their numbers or over one hyperparameter."""
    drawn = {
        "complete": spread_out(story.complete, MOST_DOTS),
        "pruned": spread_out(story.pruned, MOST_DOTS),
        "finalist": story.others,
        "chosen": story.chosen,
    }
    described = len(story.records) <= MOST_DESCRIBED
    return tuple(
        dots(name, records, dimension, described=described)
        for name, records in drawn.items()
        if records
    )


def dots(
    name: str, records: Sequence[TrialRecord], dimension: Dimension | None, *, described: bool
) -> Spec:
    """One mark per trial; pointing at it tells its hyperparameters where that is not too much."""
    trace: Spec = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": floats(_place(record, dimension) for record in records),
        "y": floats(map(last, records), digits=DIGITS),
        "marker": dict(MARKERS[name]),
        "hovertemplate": "%{text}<br><b>%{y:.5~g}</b><extra></extra>",
    }
    words = [_words(record, name, described=described) for record in records]
    return trace | {"text": words}


def polylines(name: str, lines: Sequence[Sequence[Gap]], hover: Sequence[str], style: Spec) -> Spec:
    """Many lines as one trace, with gaps between them: quick to draw, however many."""
    points = [point for line in lines for point in (*line, GAP)][:-1]
    words = [
        text for text, line in zip(hover, lines, strict=True) for text in ([text] * (len(line) + 1))
    ]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": floats(x for x, _ in points),
        "y": floats((y for _, y in points), digits=DIGITS),
        "text": words[: len(points)],
        "line": style,
        "hovertemplate": "%{text}<br><b>%{y:.5~g}</b><extra></extra>",
    }


def span(story: Story) -> tuple[float, float]:
    """The ends of the axis of trials' values."""
    values = [last(record) for record in (*story.complete, *story.pruned)]
    return reach([*values, story.tuning.best_score], maximize=story.maximize)


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


def _place(record: TrialRecord, dimension: Dimension | None) -> float:
    if dimension is None:
        return record.number
    place = dimension.at(record.params.get(dimension.name))
    if place is None:
        return math.nan
    # Trials of one category would hide each other: they are moved apart, always in the same way.
    aside = JITTER * (record.number * GOLDEN % 1 - 0.5) if dimension.choices else 0.0
    return place + aside


def _words(record: TrialRecord, name: str, *, described: bool) -> str:
    head = f"trial {record.number}, {name}"
    if not described:
        return head
    params = (f"{escaped(key)} {escaped(shown(value))}" for key, value in record.params.items())
    return "<br>".join((head, *params))
