"""Small marks drawn inside text and tables as inline SVG; colours come from the style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lodestar.report.markup import Html, tag

__all__ = ["Scale", "brand", "histogram", "icon", "interval", "paired_bars", "trend", "whisker_bar"]

ICONS = {
    "ok": "M5 12.5l4.5 4.5L19 7.5",
    "warning": "M12 4l9 16H3zM12 10v4.5M12 17.2v.3",
    "note": "M12 11v6M12 7.2v.3M12 3a9 9 0 1 0 .01 0",
    "theme": "M12 3a9 9 0 1 0 .01 0M12 3v18M12 8h7.5M12 12h9M12 16h7.5",
}


@dataclass(frozen=True)
class Scale:
    """Maps values to per cent of a mark's width; what is not finite or outside sits at an end."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float], *, room: float = 0.0) -> "Scale":
        """Zero and all finite values, with `room` of the span beyond the ends that are not zero."""
        finite = [value for value in values if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        low, high = min(low, 0.0), max(high, 0.0)
        span = (high - low) or 1.0
        return cls(low - room * span if low < 0 else low, high + room * span if high > 0 else high)

    def at(self, value: float) -> float:
        """Where `value` lies, 0 to 100."""
        if not math.isfinite(value) or self.high <= self.low:
            return 0.0
        return round(min(max(100 * (value - self.low) / (self.high - self.low), 0.0), 100.0), 2)


def interval(value: float, low: float, high: float, scale: Scale, *, alt: str) -> Html:
    """A track with the interval as a bar and the value as a tick."""
    start, end, tick, zero = (scale.at(each) for each in (low, high, value, 0.0))
    inside = scale.low < 0 < scale.high
    return _svg(
        tag("rect", x=0, y=5, width=100, height=4, class_="track"),
        tag("line", x1=zero, x2=zero, y1=1, y2=13, class_="zero") if inside else Html(),
        tag("rect", x=start, y=4, width=max(end - start, 0.6), height=6, class_="band"),
        tag("line", x1=tick, x2=tick, y1=1, y2=13, class_="tick"),
        size=(100, 14),
        class_="interval",
        alt=alt,
    )


def whisker_bar(mean: float, deviation: float, scale: Scale, *, alt: str) -> Html:
    """A bar from zero to the mean, with a whisker of one deviation to each side."""
    zero, tip = scale.at(0.0), scale.at(mean)
    left, right = scale.at(mean - deviation), scale.at(mean + deviation)
    whisker = tag("line", x1=left, x2=right, y1=7, y2=7, class_="whisker")
    return _svg(
        tag("rect", x=min(zero, tip), y=2, width=abs(tip - zero), height=10, class_="mean"),
        tag("line", x1=zero, x2=zero, y1=0, y2=14, class_="zero"),
        whisker if deviation > 0 else Html(),
        size=(100, 14),
        class_="importance",
        alt=alt,
    )


def histogram(counts: Sequence[int], *, alt: str) -> Html:
    """Bars side by side, as high as their share of the highest."""
    top = max(counts, default=0) or 1
    bars = (
        tag("rect", x=4 * place, y=round(24 - height, 2), width=3.4, height=height)
        for place, many in enumerate(counts)
        if (height := round(max(24 * many / top, 0.8 if many else 0.0), 2))
    )
    base = tag("line", x1=0, x2=4 * len(counts), y1=24, y2=24, class_="zero")
    return _svg(*bars, base, size=(4 * len(counts), 24.5), class_="histogram", alt=alt)


def paired_bars(pairs: Sequence[tuple[float, float]], *, alt: str) -> Html:
    """Per bin a pale bar for before and a narrow one for now, as high as their share of the highest."""
    top = max((max(pair) for pair in pairs), default=0.0) or 1.0
    bars = []
    for place, (before, now) in enumerate(pairs):
        for value, shift, width, name in ((before, 0.0, 8.0, "before"), (now, 2.0, 4.0, "now")):
            height = round(max(40 * value / top, 0.6 if value else 0.0), 2)
            bars.append(
                tag(
                    "rect",
                    x=10 * place + shift,
                    y=round(40 - height, 2),
                    width=width,
                    height=height,
                    class_=name,
                )
            )
    width = max(10 * len(pairs) - 2, 1)
    base = tag("line", x1=0, x2=width, y1=40, y2=40, class_="zero")
    return _svg(*bars, base, size=(width, 40.5), class_="paired", alt=alt)


def trend(
    points: Sequence[tuple[float, float, float] | None],
    level: float | None,
    worse: Sequence[bool],
    *,
    alt: str,
) -> Html:
    """A value with its interval per place, None where there is none, and a dashed line at `level`."""
    known = [each for point in points if point is not None for each in point]
    known += [] if level is None else [level]
    low, high = min(known, default=0.0), max(known, default=1.0)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(56 - 52 * (value - low) / span, 2)

    shapes = []
    if level is not None:
        ends = {"x1": 0, "x2": 10 * len(points), "y1": at(level), "y2": at(level)}
        shapes.append(tag("line", **ends, class_="level"))
    for place, (point, bad) in enumerate(zip(points, worse, strict=True)):
        if point is None:
            continue
        x, kind = 10 * place, " worse" if bad else ""
        value, start, end = point
        shapes += [
            tag(
                "rect",
                x=x + 3,
                y=at(end),
                width=4,
                height=max(at(start) - at(end), 0.6),
                class_=f"band{kind}",
            ),
            tag("line", x1=x + 1, x2=x + 9, y1=at(value), y2=at(value), class_=f"value{kind}"),
        ]
    return _svg(*shapes, size=(max(10 * len(points), 1), 60), class_="trend", alt=alt)


def icon(name: str) -> Html:
    """A line icon that says nothing to a screen reader: the words are beside it."""
    return tag(
        "svg",
        tag("path", d=ICONS[name]),
        viewBox="0 0 24 24",
        class_="icon",
        aria_hidden="true",
    )


def brand() -> Html:
    """A four-pointed star."""
    star = (
        "M12 1.5c.9 6.6 3 8.9 9.5 10.5-6.5 1.6-8.6 3.9-9.5 10.5"
        "-.9-6.6-3-8.9-9.5-10.5C9 10.4 11.1 8.1 12 1.5z"
    )
    return tag("svg", tag("path", d=star), viewBox="0 0 24 24", class_="brand", aria_hidden="true")


def _svg(*shapes: Html, size: tuple[float, float], class_: str, alt: str) -> Html:
    return tag(
        "svg",
        shapes,
        viewBox=f"0 0 {size[0]} {size[1]}",
        preserveAspectRatio="none",
        class_=class_,
        role="img",
        aria_label=alt,
    )
