"""How to build, fit, ask, save and load an estimator; each library that differs overrides a part."""

import copy
import inspect
import pickle
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lodestar.core.models.watching import StoppedError, Watch
from lodestar.core.results import Predictions, Task, Truth
from lodestar.errors import ArtifactError, DataError, UsageError
from lodestar.interface.learning import FeatureMatrix

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STRIDE", "Estimator", "Family", "Matrix"]

# Whatever the class path names: the libraries share conventions, but no base class.
Estimator: TypeAlias = Any
Matrix: TypeAlias = "pd.DataFrame | NDArray[Any]"
# Every third row: row fractions rank hyperparameters well from there on.
GROWING = 3
# So many rounds are one, with a step as much larger: it ranks hyperparameters nearly as well.
STRIDE = 2
# Deep trees cost by bins more than by rows: a quarter of the usual 255 is three times as fast.
DRAFT_BINS = 63


class Family:
    """Any class with pandas `fit` and `predict`; scikit-learn's in particular."""

    name: ClassVar[str] = "generic"
    # Hyperparameters that only work with validation rows inside `fit`, which it is not given here.
    needs_validation: ClassVar[frozenset[str]] = frozenset()
    # What the library calls the number of rounds, the usual name first; none: no early stopping.
    rounds: ClassVar[tuple[str, ...]] = ()
    # What the library calls the number of bins of a histogram, the usual name first; none: it has none.
    bins: ClassVar[tuple[str, ...]] = ()
    # What the library calls the step of a round (shrinkage), the usual name first; none: it takes none.
    steps: ClassVar[tuple[str, ...]] = ()
    # What the estimator computes in. Features are made in it at once instead of being cast later.
    dtype: ClassVar[type[np.floating[Any]]] = np.float64

    def __init__(self, cls: type, task: Task) -> None:
        self.cls = cls
        self.task = task

    def parameters(self) -> frozenset[str] | None:
        """The hyperparameters that the class takes; None where it takes any name."""
        return None if _takes_any_name(self.cls) else named_parameters(self.cls)

    @cached_property
    def accepted(self) -> frozenset[str] | None:
        """`parameters()`, looked up once: reading signatures takes milliseconds, and every fit asks."""
        return self.parameters()

    def rounds_name(self, hyperparameters: Mapping[str, Any]) -> str | None:
        """By which name these hyperparameters give the number of rounds, or else would."""
        given = [name for name in self.rounds if name in hyperparameters]
        return next(iter((*given, *self.rounds)), None)

    def drafted(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """For a quicker fit that ranks hyperparameters alike: fewer bins, where the recipe says none."""
        if not self.bins or set(self.bins) & set(hyperparameters):
            return dict(hyperparameters)
        return {**hyperparameters, self.bins[0]: DRAFT_BINS}

    def boosts(self, hyperparameters: Iterable[str]) -> bool:
        """Whether each round takes a step, where these are given and say how many and how large."""
        given = set(hyperparameters)
        return len(given & set(self.steps)) == 1 and len(given & set(self.rounds)) == 1

    def strided(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Half as many rounds with steps twice as large, which are no larger than 1."""
        if not self.boosts(hyperparameters):
            return dict(hyperparameters)
        (step,) = hyperparameters.keys() & set(self.steps)
        (rounds,) = hyperparameters.keys() & set(self.rounds)
        before, count = hyperparameters[step], hyperparameters[rounds]
        if before is None or count is None or not 0 < before < 1:
            return dict(hyperparameters)
        after = min(STRIDE * before, 1.0)
        return {**hyperparameters, step: after, rounds: max(1, round(count * before / after))}

    def shortened(self, hyperparameters: Mapping[str, Any], share: float) -> dict[str, Any]:
        """With that share of its rounds, whose steps stay: for a fit on fewer rows."""
        if not self.boosts(hyperparameters):
            return dict(hyperparameters)
        (rounds,) = hyperparameters.keys() & set(self.rounds)
        count = hyperparameters[rounds]
        if count is None:
            return dict(hyperparameters)
        return {**hyperparameters, rounds: max(1, round(share * count))}

    def unstoppable(self, hyperparameters: Iterable[str]) -> str | None:
        """Why trainings with these hyperparameters cannot stop early, if they cannot."""
        del hyperparameters
        return None if self.rounds else f"{self.cls.__name__} cannot be stopped early"

    def refusals(self) -> tuple[type[Exception], ...]:
        """What the library raises for values that it does not take."""
        return (ValueError, TypeError)

    def build(self, hyperparameters: Mapping[str, Any], *, seed: int) -> Estimator:
        """Make an unfitted estimator, seeded where it can be and the recipe does not."""
        given = dict(hyperparameters)
        if self.accepted is not None and "random_state" in self.accepted:
            given.setdefault("random_state", seed)
        return self.cls(**given)

    def fit(self, estimator: Estimator, features: FeatureMatrix, truth: Truth) -> None:
        """Fit in place."""
        estimator.fit(self._input(features), truth.target)

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """Fit, telling intermediate values: here a third of the rows first, then all of them.

        A third that lacks a class, or treated or control rows, would say nothing and is left out.

        Raises:
            UsageError: training is to stop early, but cannot be looked at round by round.
        """
        if watch.patience is not None:
            raise UsageError(
                f"{self.cls.__name__} cannot be looked at round by round with these hyperparameters "
                f"and {watch.metric}, so it cannot stop early",
                hint="leave hyperparameter_tuning.early_stopping_rounds out",
            )
        third = np.arange(0, len(truth), GROWING)
        if watch.looks and _kinds(truth) == _kinds(truth.at(third)):
            # A copy, because `warm_start` would make the second fit go on from the first.
            early = copy.deepcopy(estimator)
            part = FeatureMatrix(features.rows(third), features.names)
            self.fit(early, part, truth.at(third))
            watch.at(100 // GROWING, self.predict(early, watch.features, watch.classes))
        if watch.overdue():
            raise StoppedError
        self.fit(estimator, features, truth)

    def predict(
        self, estimator: Estimator, features: FeatureMatrix, classes: tuple[Any, ...]
    ) -> Predictions:
        """Ask for the values and, where the estimator has them, the probabilities."""
        rows = self._input(features)
        values = _one_per_row(estimator.predict(rows), len(features))
        if self.task != "classification":
            return Predictions(values)
        probabilities = None
        if hasattr(estimator, "predict_proba"):
            probabilities = spread(estimator.predict_proba(rows), estimator.classes_, len(classes))
        return Predictions(_class_positions(values, self.cls), probabilities, classes)

    def contributions(
        self, estimator: Estimator, features: FeatureMatrix
    ) -> NDArray[np.float64] | None:
        """Exact TreeSHAP values (n, p), where the library computes them itself; else None."""
        del estimator, features
        return None

    def save(self, estimator: Estimator, folder: Path) -> str:
        """Write the fitted estimator below `folder`; return the file's name."""
        with (folder / "model.pkl").open("wb") as file:
            pickle.dump(estimator, file, protocol=5)
        return "model.pkl"

    def load(self, path: Path) -> Estimator:
        """Read what `save` wrote. The file's digest has been checked before."""
        with path.open("rb") as file:
            estimator = pickle.load(file)  # noqa: S301 -- verified against the manifest
        if not isinstance(estimator, self.cls):
            raise ArtifactError(
                f"{path.name} holds a {type(estimator).__name__}, not a {self.cls.__name__}"
            )
        return estimator

    def _input(self, features: FeatureMatrix) -> Matrix:
        return features.frame()


def _kinds(truth: Truth) -> tuple[set[Any], set[Any]]:
    """The classes and the treatments that occur."""
    classes = set(np.unique(truth.target).tolist()) if truth.classes else set()
    treatments = set() if truth.treatment is None else set(np.unique(truth.treatment).tolist())
    return classes, treatments


def named_parameters(cls: type) -> frozenset[str] | None:
    """Every name that `cls(...)` takes, following **kwargs up the inheritance; None if any goes."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        if base is object:
            return frozenset(names)
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return frozenset(names)
    return None


def _takes_any_name(cls: type) -> bool:
    """Whether **kwargs reach up to the last constructor, which then does with them what it likes."""
    found = [vars(base)["__init__"] for base in cls.__mro__[:-1] if "__init__" in vars(base)]
    kinds = [{p.kind for p in inspect.signature(init).parameters.values()} for init in found]
    return bool(kinds) and all(inspect.Parameter.VAR_KEYWORD in kind for kind in kinds)


def refuse_absent_classes(truth: Truth) -> None:
    """For libraries that number the classes they are given, and so would mix up what comes later.

    Raises:
        DataError: the rows to fit on lack a class.
    """
    if not truth.classes:
        return
    absent = np.flatnonzero(np.bincount(truth.target, minlength=len(truth.classes)) == 0)
    if len(absent):
        names = ", ".join(repr(truth.classes[position]) for position in absent)
        raise DataError(
            f"the rows to fit on have no row of class {names}, and this library needs all of them",
            hint="split.method: stratified, more rows, or leave the class out in the loader",
        )


def spread(probabilities: Matrix, seen: NDArray[Any], count: int) -> NDArray[Any]:
    """Put each seen class's column at its own position: a class absent from training gets 0."""
    values = np.asarray(probabilities)
    positions = np.asarray(seen, dtype=np.int64)
    if values.shape[1] == count:
        return values
    full = np.zeros((len(values), count), dtype=values.dtype)
    full[:, positions] = values
    return full


def _one_per_row(values: Matrix, rows: int) -> NDArray[Any]:
    flat = np.asarray(values)
    if flat.ndim == 2 and flat.shape[1] == 1:  # noqa: PLR2004 -- a column is a list of rows
        flat = flat[:, 0]
    if flat.shape != (rows,):
        raise DataError(
            f"the estimator's predict returned the shape {flat.shape} for {rows} rows",
            hint="predict must return one value per row",
        )
    return flat


def _class_positions(values: NDArray[Any], cls: type) -> NDArray[np.int64]:
    positions = values.astype(np.int64)
    if not np.array_equal(positions, values):
        raise DataError(
            f"{cls.__name__}.predict returns numbers that are no classes",
            hint="it is a regressor: use task_type: regression, or a classifier's class_path",
        )
    return positions
