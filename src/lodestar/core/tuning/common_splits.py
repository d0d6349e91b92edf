"""The splits that all finalists share: their seeds, and how many rows judge on each."""

__all__ = ["common_split_seed", "common_validation_size"]

FIRST_COMMON_SEED = 1_000_000
# So many rows judge well enough on each of them.
ENOUGH_JUDGES = 1_000


def common_split_seed(position: int) -> int:
    """The seed of the finalists' splits, far from the trials' own."""
    return FIRST_COMMON_SEED + position


def common_validation_size(rows: int, splits: int, validation_size: float) -> float:
    """The share of the rows that judges on a common split: no more than is needed.

    The rest is trained on, so that what is judged is nearly the model of all rows. On `splits` splits
    every row judges about once, as in cross-validation with as many folds.
    """
    return min(validation_size, max(1 / splits, ENOUGH_JUDGES / rows))
