"""The section about the hyperparameter search: what it found, how sure that is, how it got there."""

import math
from collections.abc import Mapping, Sequence

from lodestar.core.tuning.result import Finalist, TuningResult
from lodestar.report import marks, wording
from lodestar.report.markup import Html, Node, table, tag
from lodestar.report.performance import section
from lodestar.report.plots import Figure, figure_panel, plot
from lodestar.report.search_history import curves, finals, history
from lodestar.report.search_space import parallel, slices
from lodestar.report.search_story import Story, shown

__all__ = ["search"]

HEADERS = (
    "Rank",
    "Trial",
    "Mean",
    "Standard error",
    "On its own split",
    "Splits",
    tag("span", "Verdict", class_="unseen"),
    "Hyperparameters",
)
MINUTE, HOUR = 60, 3600
FEW_SECONDS = 10


def search(tuning: TuningResult) -> Html:
    """The figures in the order of the story: the search, its finalists, the space."""
    story = Story.of(tuning)
    wide, compared = parallel(story), finals(story)
    over = [drawn for drawn in (history(story), curves(story)) if drawn is not None]
    return section(
        "search",
        "Search",
        _notes(tuning.notes),
        tag("div", map(figure_panel, over), class_=f"grid {'two' if len(over) > 1 else 'one'}"),
        figure_panel(compared, _finalists(story)) if compared else _unjudged(story),
        _slices(slices(story), tuning.importances),
        figure_panel(wide) if wide else None,
        lead=_lead(story),
    )


def _lead(story: Story) -> Node:
    return [_trials(story.tuning), " ", _score(story), " ", _expected(story), " ", _flattery(story)]


def _trials(tuning: TuningResult) -> Node:
    tried = len(tuning.history)
    of = f"{tried:,} of {tuning.asked:,} trials" if tried < tuning.asked else None
    ends = [f"{tuning.count(state):,} {state}" for state in ("complete", "pruned", "failed")]
    trials = tag("b", of or wording.count(tried, "trial"))
    return [trials, f" in {_duration(tuning.seconds)}: {', '.join(ends)}."]


def _score(story: Story) -> Node:
    tuning, winner = story.tuning, story.winner
    metric = wording.label(tuning.metric)
    if winner is None or not winner.scores:
        own = tuning.best_score if winner is None else winner.mean
        return [
            f"The chosen trial has {metric} ",
            tag("b", wording.number(own)),
            " on its own split; the finalists were not compared, so that this is ",
            "likely flattered." if tuning.draft_share is None else "a draft's score.",
        ]
    better = f"{'higher' if story.maximize else 'lower'} is better"
    splits = wording.count(len(winner.scores), "common split")
    value = wording.number(winner.mean)
    told = f" on {splits}, too few for a standard error ({better})."
    if math.isfinite(tuning.best_error):
        value += f" \N{PLUS-MINUS SIGN} {wording.short(tuning.best_error)}"
        told = f" (mean and standard error over {splits}; {better})."
    return [f"The chosen hyperparameters score {metric} ", tag("b", value), told]


def _expected(story: Story) -> Node:
    """What the model of all rows is to score, and what that is made up of."""
    expected = story.tuning.expected
    if expected is None or not (expected.gain or expected.offset):
        return None
    parts = []
    if expected.gain:
        rest = f"{1 - expected.rows:.0%} of the training rows that it was not fitted on there"
        parts.append(f"{_signed(expected.gain)} for the {rest}")
    if expected.offset:
        parts.append(f"{_signed(-expected.offset)} for how hard the rows that judged are")
    value = tag("b", wording.number(expected.value))
    return ["The model of all rows is expected to score ", value, f": {', '.join(parts)}."]


def _signed(value: float) -> str:
    sign = "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{wording.short(abs(value))}"


def _flattery(story: Story) -> Node:
    """How much the best-looking trial owed to its own split."""
    naive, gap = story.naive, story.tuning.optimism
    if naive is None or not naive.scores or not math.isfinite(gap):
        return None
    chosen = "which was also chosen" if naive is story.winner else "which was not chosen"
    begin = (
        f"The trial that looked best, number {naive.number}, {chosen}, had "
        f"{wording.number(naive.searched)} on its own split and {wording.number(naive.mean)} on the "
        "common ones: "
    )
    if gap > 0:
        return [begin, "it ", tag("b", f"flattered itself by {wording.short(gap)}"), "."]
    if gap < 0:
        return [
            begin,
            tag("b", "it had not flattered itself"),
            f", it is {wording.short(-gap)} better.",
        ]
    return [begin, tag("b", "it had not flattered itself"), "."]


def _notes(notes: Sequence[str]) -> Html | None:
    if not notes:
        return None
    listed = tag("ul", (tag("li", note) for note in notes))
    return tag("div", marks.icon("note"), listed, class_="notice note", role="note")


def _unjudged(story: Story) -> Html | None:
    """The table alone, where there are no scores to draw."""
    if not story.tuning.finalists:
        return None
    return tag("div", tag("h3", "Finalists"), _finalists(story), class_="panel")


def _finalists(story: Story) -> Html:
    rows = (
        _finalist(story, each, rank) for rank, each in enumerate(story.tuning.finalists, start=1)
    )
    return table(HEADERS, rows, label="Finalists", class_="finalists")


def _finalist(story: Story, finalist: Finalist, rank: int) -> tuple[Node, ...]:
    chip = None
    if finalist is story.winner:
        chip = tag("span", "chosen", class_="chip chosen")
    elif finalist.dropped:
        chip = tag(
            "span", "dropped", class_="chip", title="worse than the leader by Wilcoxon's test"
        )
    mean = wording.number(finalist.mean) if finalist.scores else wording.MISSING
    return (
        str(rank),
        str(finalist.number),
        tag(
            "span" if finalist.dropped else "b", mean, class_="muted" if finalist.dropped else None
        ),
        wording.short(finalist.error),
        wording.number(finalist.searched),
        str(len(finalist.scores)),
        chip,
        [_param(name, value) for name, value in finalist.params.items()],
    )


def _param(name: str, value: object) -> Html:
    return tag("span", tag("span", name, class_="muted"), " ", tag("code", shown(value)))


def _slices(drawn: Sequence[Figure], importances: Mapping[str, float]) -> Html | None:
    if not drawn:
        return None
    importance = (
        " Importance is a hyperparameter's share in what sets the best tenth of the complete trials "
        "apart (PED-ANOVA)."
    )
    return tag(
        "div",
        tag("h3", "One hyperparameter at a time"),
        tag(
            "p",
            "The score over each hyperparameter. A slope, or an optimum at an edge, says where to "
            "search next; marks are those of the history.",
            importance if importances else None,
            class_="muted small",
        ),
        tag("div", (_slice(each, importances.get(each.title)) for each in drawn), class_="slices"),
        class_="panel",
    )


def _slice(figure: Figure, importance: float | None) -> Html:
    share = None if importance is None else f"importance {importance:.0%}"
    told = ", ".join(filter(None, (share, figure.lead)))
    small = tag("small", told, class_="muted") if told else None
    return tag("div", tag("h4", tag("code", figure.title), " ", small), plot(figure))


def _duration(seconds: float) -> str:
    if seconds < FEW_SECONDS:
        return f"{seconds:.1f} s"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds // MINUTE:.0f} min {seconds % MINUTE:.0f} s"
    return f"{seconds // HOUR:.0f} h {seconds % HOUR // MINUTE:.0f} min"
