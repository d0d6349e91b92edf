"""Numbers and instants as a person reads them."""

import math
from datetime import datetime

__all__ = ["count", "instant", "label", "number", "share", "short", "title"]

MISSING = "\N{EN DASH}"
ACRONYMS = {
    name.lower(): name
    for name in ("AUC", "AUUC", "ECE", "F1", "MAE", "MAPE", "MCC", "MSE", "PR", "RMSE", "RMSLE")
} | {"roc": "ROC", "r2": "R\N{SUPERSCRIPT TWO}", "smape": "sMAPE"}
TINY, HUGE = 1e-4, 1e7


def number(value: float) -> str:
    """About four significant digits: 0.8731, 12.46, 1,204; a dash where there is none."""
    if not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size == 0:
        return "0"
    if size < TINY or size >= HUGE:
        text = f"{value:.3e}"
    elif size < 1:
        text = f"{value:.4f}"
    else:
        text = f"{value:,.{max(0, 3 - int(math.log10(size)))}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def short(value: float, *, largest: float = 0.0) -> str:
    """A number that stays narrow: what is tiny beside the largest of its column is 0.0000."""
    if not 0 < abs(value) < TINY:
        return number(value)
    return "0.0000" if largest >= TINY else f"{value:.1e}".replace("-", "\N{MINUS SIGN}")


def count(value: int, noun: str = "") -> str:
    """A whole number with its noun: "1 row", "12,400 rows"."""
    return f"{value:,}" + (f" {noun}{'' if value == 1 else 's'}" if noun else "")


def share(part: float, whole: float) -> str:
    """Part of a whole in per cent, with one decimal."""
    return f"{100 * part / whole:.1f} %" if whole else MISSING


def label(name: str) -> str:
    """An identifier as words: `roc_auc` → "ROC AUC", `average_precision` → "average precision"."""
    return " ".join(ACRONYMS.get(word, word) for word in name.split("_"))


def title(name: str) -> str:
    """An identifier as the words of a title: `average_precision` → "Average precision"."""
    words = label(name)
    return words[:1].upper() + words[1:]


def instant(text: str) -> str:
    """ISO text without its fraction of a second; anything else as it is."""
    try:
        return datetime.fromisoformat(text).replace(microsecond=0).isoformat(sep=" ")
    except ValueError:
        return text
