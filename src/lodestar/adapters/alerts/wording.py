"""How an alert reads: as plain values for programs, as a few lines for people."""

from typing import Any

from lodestar.interface.alerting import Notice

__all__ = ["plain_notice", "said_of"]


def plain_notice(one: Notice) -> dict[str, Any]:
    """Plain values; `since` in UTC."""
    return {
        "id": one.id,
        "status": one.status,
        "rule": one.rule,
        "severity": one.severity,
        "metric": one.metric,
        "labels": dict(one.labels),
        "value": one.value,
        "condition": one.condition,
        "since": one.since.isoformat(timespec="seconds"),
        "run_id": one.run_id,
        "summary": one.summary,
    }


def said_of(one: Notice) -> str:
    """What is so, since when, of which run; then the rule's own words."""
    labels = ", ".join(f"{name} {_visible(value)}" for name, value in one.labels.items())
    of = f" ({labels})" if labels else ""
    since = f"{one.since:%Y-%m-%d %H:%M} UTC"
    if one.status == "resolved":
        words = f"{one.metric}{of} fires no more ({one.condition}); it did since {since}"
    else:
        words = f"{one.metric}{of} is {one.value:.6g}, {one.condition}, since {since}"
    run = f"; run {one.run_id[:8]}" if one.run_id else ""
    return f"{words}{run}" + (f"\n{one.summary}" if one.summary else "")


def _visible(text: str) -> str:
    """A label may be a column's name, which data chose."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
