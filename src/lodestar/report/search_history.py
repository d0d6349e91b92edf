"""How the search went: its history, the intermediate values, and the finalists' comparison."""

from collections.abc import Sequence

from lodestar.core.tuning.result import Finalist, TrialRecord
from lodestar.report import wording
from lodestar.report.plots import Figure, Spec, floats, layout
from lodestar.report.search_story import Story, last, reach, spread_out
from lodestar.report.search_traces import DIGITS, marked, polylines, span, whole

__all__ = ["curves", "finals", "history"]

MOST_LINES = 300
MOST_POINTS = 4000
POINTS_OF_A_LINE = 3


def history(story: Story) -> Figure:
    """Each trial's value in the order of trials, and the best so far."""
    low, high = span(story)
    end = max((record.number for record in story.records), default=0)
    arranged = layout("Trial", wording.title(story.tuning.metric), legend=True)
    arranged["xaxis"] |= whole(end + 1) | {"range": floats((-0.02 * end - 0.5, 1.02 * end + 0.5))}
    arranged["yaxis"] |= {"range": floats((low, high), digits=DIGITS)}
    outside = sum(not low <= last(each) <= high for each in (*story.complete, *story.pruned))
    lead = "Every trial has a split of its own: some of the ups and downs are luck."
    if story.winner and story.winner.scores:
        lead += " Dashed: the chosen one on the common splits."
    if outside:
        lead += f" {wording.count(outside, 'far worse value')} at the edge."
    alt = (
        f"Optimisation history: the values of {wording.count(len(story.complete), 'complete trial')}"
        f" and {len(story.pruned)} pruned in the order of trials, and the best so far."
    )
    drawn = (
        *_common_level(story, end),
        *_best_so_far(story, end),
        *_failures(story, low if story.maximize else high),
        *marked(story),
    )
    return Figure("search-history", "Optimisation history", alt, drawn, arranged, lead)


def curves(story: Story) -> Figure | None:
    """The intermediate values of the trials that were watched."""
    watched = [record for record in story.records if record.curve]
    if not watched:
        return None
    final = {record.number for record in (*story.others, *story.chosen)}
    rest = spread_out([each for each in watched if each.number not in final], MOST_LINES)
    pruned = [each for each in rest if each.state == "pruned"]
    groups: tuple[tuple[str, Sequence[TrialRecord], Spec], ...] = (
        ("complete", [e for e in rest if e.state != "pruned"], {"color": "--c1-soft", "width": 1}),
        ("pruned", pruned, {"color": "--faint", "width": 1, "dash": "dot"}),
        ("finalist", story.others, {"color": "--c1", "width": 1.5}),
        ("chosen", story.chosen, {"color": "--c2", "width": 3}),
    )
    drawn = tuple(
        trace
        for name, records, style in groups
        for trace in _curves(name, [e for e in records if e.curve], style, of=len(watched))
    )
    values = (value for record in watched for _, value in record.curve)
    arranged = layout("Rounds of the trial", wording.title(story.tuning.metric), legend=True)
    arranged["xaxis"] |= {"ticksuffix": " %", "range": [-2, 102], "dtick": 25}
    arranged["yaxis"] |= {"range": floats(reach(values, maximize=story.maximize), digits=DIGITS)}
    alt = (
        f"{wording.label(story.tuning.metric)} against per cent of a trial's rounds, of "
        f"{wording.count(len(watched), 'trial')}, {len(story.pruned)} of them pruned."
    )
    lead = (
        "Validation score while a trial is fitted; a dotted line ends where its trial was pruned."
    )
    if any(record.offset for record in watched):
        lead += " It is corrected for how hard a trial's own rows are, so it may pass the bound."
    return Figure("search-curves", "Intermediate values", alt, drawn, arranged, lead)


def finals(story: Story) -> Figure | None:
    """The finalists' scores on the splits that they share."""
    judged = [each for each in story.tuning.finalists if each.scores]
    if not judged:
        return None
    winner, others = judged[0], judged[1:]
    groups: tuple[tuple[str, Sequence[Finalist], Spec], ...] = (
        (
            "dropped",
            [e for e in others if e.dropped],
            {"color": "--faint", "width": 1, "dash": "dot"},
        ),
        ("finalist", [e for e in others if not e.dropped], {"color": "--c1-mid", "width": 1.25}),
        ("chosen", [winner], {"color": "--c2", "width": 3}),
    )
    drawn = tuple(_scores(name, finalists, style) for name, finalists, style in groups if finalists)
    splits = max(len(each.scores) for each in judged)
    arranged = layout("Common split", wording.title(story.tuning.metric), legend=True)
    arranged["xaxis"] |= whole(splits) | {"range": [0.7, splits + 0.3]}
    scores = [score for each in judged for score in each.scores]
    arranged["yaxis"] |= {"range": floats(reach(scores, maximize=story.maximize), digits=DIGITS)}
    alt = (
        f"{wording.label(story.tuning.metric)} of {wording.count(len(judged), 'finalist')} on "
        f"{wording.count(splits, 'common split')}; chosen: trial {winner.number}."
    )
    lead = (
        "Compare split by split: an easy split lifts all of them, only the order within it counts."
    )
    if any(each.dropped for each in judged):
        lead += " A dropped one has fewer splits: its mean stands beside no other."
    return Figure("search-finals", "Finalists on common splits", alt, drawn, arranged, lead)


def _common_level(story: Story, end: int) -> tuple[Spec, ...]:
    """The chosen trial's score on the common splits: what the search is really worth."""
    winner = story.winner
    if winner is None or not winner.scores:
        return ()
    level: Spec = {
        "type": "scatter",
        "mode": "lines",
        "name": "chosen, on common splits",
        "x": [-end - 1, 2 * end + 1],
        "y": floats([winner.mean] * 2, digits=DIGITS),
        "line": {"color": "--c2", "width": 1.5, "dash": "dash"},
        "showlegend": False,
        "hovertemplate": "chosen, on common splits<br><b>%{y:.5~g}</b><extra></extra>",
    }
    return (level,)


def _best_so_far(story: Story, end: int) -> tuple[Spec, ...]:
    best = story.best_so_far()
    if not best:
        return ()
    best.append((end, best[-1][1]))
    line: Spec = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [number for number, _ in best],
        "y": floats((value for _, value in best), digits=DIGITS),
        "line": {"color": "--c1", "width": 1.75, "shape": "hv"},
        "hoverinfo": "skip",
    }
    return (line,)


def _failures(story: Story, edge: float) -> tuple[Spec, ...]:
    """Failed trials have no value: they are ticks at the edge."""
    numbers = [record.number for record in story.records if record.state == "failed"]
    if not numbers:
        return ()
    ticks: Spec = {
        "type": "scatter",
        "mode": "markers",
        "name": "failed",
        "x": numbers,
        "y": floats([edge] * len(numbers), digits=DIGITS),
        "marker": {
            "symbol": "line-ns",
            "size": 14,
            "line": {"width": 2, "color": "--warning"},
        },
        "cliponaxis": False,
        "hovertemplate": "trial %{x} failed<extra></extra>",
    }
    return (ticks,)


def _curves(name: str, records: Sequence[TrialRecord], style: Spec, *, of: int) -> tuple[Spec, ...]:
    if not records:
        return ()
    most = max(MOST_POINTS // of, 8)
    lines = [_thinned(record.curve, most) for record in records]
    trace = polylines(name, [each.number for each in records], lines, style)
    if min(map(len, lines)) < POINTS_OF_A_LINE:
        trace |= {"mode": "lines+markers", "marker": {"color": style["color"], "size": 5}}
    return (trace,)


def _thinned(curve: Sequence[tuple[int, float]], most: int) -> list[tuple[float, float]]:
    """At most so many points (and the last one), evenly spaced."""
    step = -(-len(curve) // most)
    return [*curve[:-1][::step], curve[-1]]


def _scores(name: str, finalists: Sequence[Finalist], style: Spec) -> Spec:
    lines = [[(float(n), score) for n, score in enumerate(e.scores, 1)] for e in finalists]
    trace = polylines(name, [each.number for each in finalists], lines, style)
    size = 8 if name == "chosen" else 5
    return trace | {"mode": "lines+markers", "marker": {"color": style["color"], "size": size}}
