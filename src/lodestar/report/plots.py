"""What all figures are made of: plain plotly specifications in the theme's colours.

A colour is the name of a style sheet variable (`--c1`): the page's script puts in the theme's value
and draws again when the theme changes. Text from the data is escaped, for plotly reads tags in it.
"""

import html
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lodestar.report.markup import Html, json_text, tag

__all__ = [
    "UNIT_RANGE",
    "Figure",
    "Spec",
    "escaped",
    "figure_panel",
    "floats",
    "guide",
    "layout",
    "plot",
]

Spec = dict[str, Any]
UNIT_RANGE = [-0.01, 1.02]


@dataclass(frozen=True)
class Figure:
    """One figure: `name` is its id on the page, `alt` tells in a sentence what is drawn.

    `lead` stands below the title; a figure that is narrower than `narrowest` pixels scrolls sideways.
    """

    name: str
    title: str
    alt: str
    data: tuple[Spec, ...]
    layout: Spec
    lead: str = ""
    narrowest: int = 0


def figure_panel(figure: Figure, *more: Html) -> Html:
    """A figure in a box, under its title; `more` stands below it."""
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("h3", figure.title),
            tag("p", figure.lead, class_="muted small") if figure.lead else None,
        ),
        plot(figure),
        more,
        class_="panel",
    )


def plot(figure: Figure) -> Html:
    """The place of a figure and, beside it, its specification as data that is never executed."""
    spec = json.dumps(
        {"data": figure.data, "layout": figure.layout}, allow_nan=False, separators=(",", ":")
    )
    place = tag(
        "div",
        class_="plot",
        id=figure.name,
        role="img",
        aria_label=figure.alt,
        style=f"min-width:{figure.narrowest}px" if figure.narrowest else None,
    )
    return tag(
        "div",
        tag("div", place, class_="scroll", tabindex=0) if figure.narrowest else place,
        tag("script", json_text(spec), type="application/json", data_figure=figure.name),
    )


def layout(
    x: str, y: str, *, unit: str = "", legend: bool = False, zero: bool = False
) -> dict[str, Any]:
    """Axes named x and y; those in `unit` go from 0 to 1; `zero` draws the line y = 0."""
    return {
        "xaxis": _axis(x, unit="x" in unit),
        "yaxis": _axis(y, unit="y" in unit) | {"zeroline": zero},
        "showlegend": legend,
    }


def guide(name: str, x: Iterable[float], y: Iterable[float]) -> Spec:
    """A thin dashed line to compare with."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": floats(x),
        "y": floats(y),
        "line": {"color": "--faint", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def escaped(name: str) -> str:
    """Text that plotly shows as it is."""
    return html.escape(name, quote=False)


def floats(values: Iterable[float], *, digits: int = 5) -> list[float | None]:
    """Five significant digits are more than a pixel shows; JSON has no NaN."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in values]


def _axis(title: str, *, unit: bool) -> Spec:
    axis: Spec = {"automargin": True, "zeroline": False}
    if title:
        axis["title"] = {"text": title, "standoff": 10}
    return axis | {"range": UNIT_RANGE, "tickformat": ".1f", "dtick": 0.2} if unit else axis
