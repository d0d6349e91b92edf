"""How far two lists of counts lie apart, and how often chance alone would bring that about."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "adjusted",
    "all_absent",
    "chance_of_outside",
    "chance_of_unseen",
    "homogeneity",
    "jensen_shannon",
    "kolmogorov",
    "kolmogorov_smirnov",
    "same_rate",
    "upper_gamma",
]

FloatArray = NDArray[np.float64]
# Below this many rows expected in a bin, chi-square's distribution is no good approximation (Cochran,
# 1954); such bins are taken together.
FEWEST_EXPECTED = 5.0
MOST_EXACT = 10_000
EXACT, TINY, MOST_STEPS = 1e-15, 1e-300, 100_000


def jensen_shannon(was: FloatArray, now: FloatArray) -> float:
    """The Jensen-Shannon distance of two lists of counts: 0 for equal shares, 1 for none in common."""
    if not was.sum() or not now.sum():
        return 0.0
    p, q = was / was.sum(), now / now.sum()
    middle = (p + q) / 2
    divergence = sum(
        float((side[side > 0] * np.log2(side[side > 0] / middle[side > 0])).sum()) / 2
        for side in (p, q)
    )
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def kolmogorov_smirnov(was: FloatArray, now: FloatArray) -> float:
    """The largest difference of two distribution functions, over the places where both are known."""
    return float(np.abs(was - now).max(initial=0.0))


def kolmogorov(distance: float, first: int, second: int) -> float:
    """The chance that samples of these sizes, of one distribution, lie at least so far apart.

    Kolmogorov's limit with Stephens' correction for finite samples (1970); an upper bound where values
    repeat or the difference is only known at some places.
    """
    effective = math.sqrt(first * second / (first + second))
    scaled = (effective + 0.12 + 0.11 / effective) * distance
    if scaled < 0.2:  # noqa: PLR2004 -- the series needs too many terms, and the sum is 1
        return 1.0
    terms = ((-1) ** (term - 1) * math.exp(-2 * (term * scaled) ** 2) for term in range(1, 101))
    return float(min(max(2 * sum(terms), 0.0), 1.0))


def homogeneity(was: FloatArray, now: FloatArray) -> float:
    """The chance of a chi-square at least as large, if both lists of counts had the same shares."""
    total = was + now
    whole = float(total.sum())
    share = min(float(was.sum()), float(now.sum())) / whole if whole else 0.0
    rare = total * share < FEWEST_EXPECTED
    sides = [np.append(side[~rare], side[rare].sum()) for side in (was, now)]
    both = sides[0] + sides[1]
    sides = [side[both > 0] for side in sides]
    both = both[both > 0]
    if len(both) < 2:  # noqa: PLR2004 -- one bin holds everything
        return 1.0
    statistic = 0.0
    for side in sides:
        expected = both * side.sum() / both.sum()
        if not expected.sum():
            return 1.0
        statistic += float(((side - expected) ** 2 / expected).sum())
    return upper_gamma((len(both) - 1) / 2, statistic / 2)


def same_rate(first: tuple[int, int], second: tuple[int, int]) -> float:
    """The chance of rates at least so unequal, of two samples `(hits, rows)`: Fisher's test, doubled.

    Beyond 10,000 hits the exact sum gives way to chi-square.
    """
    (was, before), (now, after) = first, second
    hits = was + now
    if not hits or hits == before + after:
        return 1.0
    misses = before + after - hits
    if min(hits, misses) > MOST_EXACT:
        table = [np.array([a, n - a], np.float64) for a, n in (first, second)]
        return homogeneity(*table)
    # Of all hits, how many fall among the later rows: hypergeometric.
    possible = range(max(0, hits - before), min(hits, after) + 1)
    whole = _log_choose(before + after, hits)
    chances = {
        some: math.exp(_log_choose(after, some) + _log_choose(before, hits - some) - whole)
        for some in possible
    }
    upper = sum(chance for some, chance in chances.items() if some >= now)
    lower = sum(chance for some, chance in chances.items() if some <= now)
    return min(1.0, 2 * min(upper, lower))


def chance_of_outside(outside: int, rows: int, trained: int) -> float:
    """The chance that the `outside` largest of all values are all among the later `rows`.

    That is what it takes for so many of them to lie beyond the training's largest.
    """
    if not outside:
        return 1.0
    return math.exp(
        math.lgamma(rows + 1)
        - math.lgamma(rows - outside + 1)
        - math.lgamma(rows + trained + 1)
        + math.lgamma(rows + trained - outside + 1)
    )


def chance_of_unseen(unseen: int, rows: int, singles: int, trained: int) -> float:
    """The chance of so many rows with values that training had not (Good and Turing's estimate).

    The share to expect is that of the values which training saw once; one more is granted.
    """
    if not unseen:
        return 1.0
    return 1.0 - upper_gamma(unseen, rows * (singles + 1) / (trained + 1))


def all_absent(trained: int, of: int, rows: int) -> float:
    """The chance that none of `rows` is like `trained` of the `of` training rows, all drawn alike."""
    return math.exp(
        math.lgamma(of + rows - trained + 1)
        - math.lgamma(of - trained + 1)
        - math.lgamma(of + rows + 1)
        + math.lgamma(of + 1)
    )


def adjusted(chances: FloatArray) -> FloatArray:
    """The chances after Benjamini and Hochberg's correction for their number (1995)."""
    count = len(chances)
    order = np.argsort(chances)
    scaled = chances[order] * count / np.arange(1, count + 1)
    least = np.minimum.accumulate(scaled[::-1])[::-1]
    found = np.empty(count)
    found[order] = np.minimum(least, 1.0)
    return found


def upper_gamma(shape: float, value: float) -> float:
    """The regularised upper incomplete gamma function Q.

    By its series, or its continued fraction as Lentz computes it (Press and others, Numerical Recipes,
    6.2). A served model needs no SciPy, whose import takes memory and the time of requests.
    """
    if value <= 0:
        return 1.0
    scale = math.exp(shape * math.log(value) - value - math.lgamma(shape))
    if value < shape + 1:
        return 1.0 - min(scale * _series(shape, value), 1.0)
    return min(scale * _fraction(shape, value), 1.0)


def _series(shape: float, value: float) -> float:
    term = total = 1 / shape
    step = shape
    while term > total * EXACT:
        step += 1
        term *= value / step
        total += term
    return total


def _fraction(shape: float, value: float) -> float:
    below = value + 1 - shape
    upper, lower = 1 / TINY, 1 / below
    total = lower
    for step in range(1, MOST_STEPS):
        top = step * (shape - step)
        below += 2
        lower = 1 / (_off_zero(top * lower + below))
        upper = _off_zero(below + top / upper)
        change = upper * lower
        total *= change
        if abs(change - 1) < EXACT:
            break
    return total


def _off_zero(number: float) -> float:
    return number if abs(number) > TINY else TINY


def _log_choose(of: int, taken: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(taken + 1) - math.lgamma(of - taken + 1)
