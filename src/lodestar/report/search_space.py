"""What was tried: the score over each hyperparameter, and all of them side by side."""

import math
from collections.abc import Sequence

from lodestar.core.tuning.result import TrialRecord
from lodestar.report import wording
from lodestar.report.plots import Figure, Spec, escaped, floats, layout
from lodestar.report.search_story import Dimension, Story, last, reach, shown, spread_out
from lodestar.report.search_traces import DIGITS, cut, marked, polylines, span

__all__ = ["parallel", "slices"]

MOST_VERTICES = 1000
SMALL_DECADE, DECADES = -4, 5
FEWEST = 2
AXIS_WIDTH = 112
LEVELS = ("--s1", "--s2", "--s3", "--s4", "--s5")


def slices(story: Story) -> tuple[Figure, ...]:
    """The score over each hyperparameter alone."""
    return tuple(_slice(story, each, place) for place, each in enumerate(story.dimensions, 1))


def parallel(story: Story) -> Figure | None:
    """One line per complete trial through all hyperparameters to its score.

    Made of plain lines, for plotly's own parallel coordinates need WebGL and compile code in the
    browser, which the page's policy forbids.
    """
    records = spread_out(story.complete, MOST_VERTICES // max(len(story.dimensions), 1))
    if min(len(story.dimensions), len(records)) < FEWEST:
        return None
    low, high = reach(map(last, records), maximize=story.maximize)
    axes = (*story.dimensions, Dimension("", log=False, low=low, high=high, choices=()))
    names = [each.name for each in story.dimensions]
    arranged = layout("", "")
    arranged["xaxis"] |= {
        "side": "top",
        "tickvals": list(range(len(axes))),
        "ticktext": [
            f"<b>{cut(each)}</b>" for each in (*names, wording.label(story.tuning.metric))
        ],
        "tickangle": 0,
        "range": [-0.5, len(axes) - 0.5],
        "gridcolor": "--faint",
        "showline": False,
        "fixedrange": True,
    }
    arranged["yaxis"] |= {"visible": False, "range": [-0.1, 1.1], "fixedrange": True}
    alt = (
        f"Parallel coordinates of {wording.count(len(records), 'complete trial')} over "
        f"{', '.join(names)} and the score."
    )
    lead = "A line per complete trial: the stronger its colour, the better its score."
    lead += " The chosen one is orange." if story.chosen else ""
    drawn = (*_coloured(story, records, axes), *_ends(axes), *_categories(axes))
    return Figure(
        "search-parallel",
        "Parallel coordinates",
        alt,
        drawn,
        arranged,
        lead,
        narrowest=AXIS_WIDTH * len(axes),
    )


def _slice(story: Story, dimension: Dimension, place: int) -> Figure:
    arranged = layout("", "")
    arranged["yaxis"] |= {"range": floats(span(story), digits=DIGITS), "nticks": 5}
    arranged["xaxis"] |= _slice_axis(dimension)
    alt = f"{wording.label(story.tuning.metric)} of the trials over {dimension.name}."
    drawn = marked(story, dimension)
    lead = "log scale" if dimension.log else ""
    return Figure(f"search-slice-{place}", dimension.name, alt, drawn, arranged, lead)


def _slice_axis(dimension: Dimension) -> Spec:
    if dimension.choices:
        return {
            "tickvals": list(range(len(dimension.choices))),
            "ticktext": [cut(choice) for choice in dimension.choices],
            "range": [-0.5, len(dimension.choices) - 0.5],
            "showgrid": False,
        }
    low, high = dimension.low, dimension.high
    if dimension.log:
        low, high = math.log10(low), math.log10(high)
    room = 0.05 * (high - low) or 0.5
    axis: Spec = {"type": "linear", "range": floats((low - room, high + room)), "nticks": 5}
    if dimension.log:
        axis |= {"type": "log", "exponentformat": "power" if low < SMALL_DECADE else "none"}
        if high - low > 1:
            axis["dtick"] = max(round((high - low) / DECADES), 1)
    return axis


def _coloured(
    story: Story, records: Sequence[TrialRecord], axes: Sequence[Dimension]
) -> list[Spec]:
    """A trace per level of the score, the best over the others and the chosen one over all."""
    chosen = {record.number for record in story.chosen}
    levels: list[list[TrialRecord]] = [[] for _ in LEVELS]
    for record in records:
        if record.number not in chosen:
            share = min(max(axes[-1].share(last(record)) or 0.0, 0.0), 1.0)
            better = share if story.maximize else 1 - share
            levels[min(int(better * len(LEVELS)), len(LEVELS) - 1)].append(record)
    drawn = [
        _lines(level, axes, {"color": colour, "width": 1.25})
        for level, colour in zip(levels, LEVELS, strict=True)
        if level
    ]
    if story.chosen:
        drawn.append(_lines(story.chosen, axes, {"color": "--c2", "width": 3}))
    return drawn


def _lines(records: Sequence[TrialRecord], axes: Sequence[Dimension], style: Spec) -> Spec:
    lines = [_line(record, axes) for record in records]
    trace = polylines("complete", [record.number for record in records], lines, style)
    words = [text for record in records for text in (*_words(record, axes), "")][:-1]
    return trace | {"customdata": words, "hovertemplate": "%{customdata}<extra></extra>"}


def _line(record: TrialRecord, axes: Sequence[Dimension]) -> list[tuple[float, float]]:
    shares = [axis.share(record.params.get(axis.name)) for axis in axes[:-1]]
    shares.append(axes[-1].share(last(record)))
    return [
        (place, math.nan if share is None else min(max(share, -0.05), 1.05))
        for place, share in enumerate(shares)
    ]


def _words(record: TrialRecord, axes: Sequence[Dimension]) -> list[str]:
    head = f"trial {record.number}: <b>{wording.number(last(record))}</b>"
    params = (f"{axis.name} {shown(record.params.get(axis.name))}" for axis in axes[:-1])
    return [*(f"{head}<br>{escaped(text)}" for text in params), head]


def _ends(axes: Sequence[Dimension]) -> list[Spec]:
    """The highest and the lowest value of each axis of numbers, above and below it."""
    numeric = [(place, axis) for place, axis in enumerate(axes) if not axis.choices]
    places = [place for place, _ in numeric]
    return [
        _labels(places, [1.03] * len(places), [shown(a.high) for _, a in numeric], "top center"),
        _labels(places, [-0.03] * len(places), [shown(a.low) for _, a in numeric], "bottom center"),
    ]


def _categories(axes: Sequence[Dimension]) -> list[Spec]:
    """The values of each axis of categories, beside it."""
    placed = [
        (place, axis.share(choice), choice)
        for place, axis in enumerate(axes)
        for choice in axis.choices
    ]
    if not placed:
        return []
    heights = [share or 0.0 for _, share, _ in placed]
    words = [choice for _, _, choice in placed]
    return [_labels([place for place, _, _ in placed], heights, words, "middle right")]


def _labels(
    places: Sequence[float], heights: Sequence[float], words: Sequence[str], position: str
) -> Spec:
    return {
        "type": "scatter",
        "mode": "text",
        "x": floats(places),
        "y": floats(heights),
        "text": [cut(text) for text in words],
        "textposition": position,
        "textfont": {"color": "--text", "size": 11, "shadow": "auto"},
        "hoverinfo": "skip",
        "cliponaxis": False,
    }
