"""The splits that all finalists share: their seeds, and which and how many rows judge on each."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CommonSplits", "by_share", "by_windows", "common_split_seed", "fold_of"]

FIRST_COMMON_SEED = 1_000_000
# So many rows judge well enough on each of them.
ENOUGH_JUDGES = 1_000
ROUNDING = 1e-9


@dataclass(frozen=True)
class CommonSplits:
    """How many there are, and the mean shares of the rows that judge on one and that are fitted on.

    `windows`: into how many windows of time the rows that judge were to be cut; None: by seeds.
    """

    count: int
    validation_size: float
    train_size: float
    windows: int | None = None


def common_split_seed(position: int) -> int:
    """The seed of the finalists' splits, far from the trials' own."""
    return FIRST_COMMON_SEED + position


def fold_of(seed: int, share: float) -> tuple[int, int] | None:
    """Which part of this share judges on a common split, of the rows shuffled by which seed.

    As long as there are parts of one shuffle left, no row judges twice. None: it is no common split.
    """
    if seed < FIRST_COMMON_SEED:
        return None
    shuffle, fold = divmod(seed - FIRST_COMMON_SEED, int(1 / share + ROUNDING))
    return fold, FIRST_COMMON_SEED + shuffle


def by_share(rows: int, splits: int, validation_size: float, *, classes: int = 0) -> CommonSplits:
    """No more rows judge on a split than are needed, so that nearly the model of all rows is judged.

    On `splits` splits every row judges about once, as in cross-validation with as many folds.
    """
    enough = max(ENOUGH_JUDGES, classes)  # a stratified split has one row of each
    share = min(validation_size, max(1 / splits, enough / rows))
    return CommonSplits(splits, share, 1 - share)


def by_windows(
    rows: int, splits: int, validation_size: float, cut: Callable[[int], int]
) -> CommonSplits:
    """Windows of time, with enough rows in each; `cut` says how many of so many there can be."""
    asked = max(1, min(splits, int(rows * validation_size) // ENOUGH_JUDGES))
    count = cut(asked) if asked > 1 else 1
    share = validation_size / count
    train = 1 - validation_size + share * (count - 1) / 2
    return CommonSplits(count, share, train, asked if count > 1 else None)
