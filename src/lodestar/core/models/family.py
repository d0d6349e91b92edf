"""How to build, fit, ask, save and load an estimator; each library that differs overrides a part."""

import inspect
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.core.results import Predictions, Task, Truth
from lodestar.errors import ArtifactError, DataError
from lodestar.interface.learning import FeatureMatrix

__all__ = ["Family"]


class Family:
    """Any class with pandas `fit` and `predict`; scikit-learn's in particular."""

    name: ClassVar[str] = "generic"
    # What the estimator computes in. Features are made in it at once instead of being cast later.
    dtype: ClassVar[type[np.floating[Any]]] = np.float64

    def __init__(self, cls: type, task: Task) -> None:
        self.cls = cls
        self.task = task

    def parameters(self) -> frozenset[str] | None:
        """The hyperparameters that the class takes; None where it takes any name."""
        return named_parameters(self.cls)

    def build(self, hyperparameters: Mapping[str, Any], *, seed: int) -> Any:  # noqa: ANN401 -- any estimator
        """Make an unfitted estimator, seeded where it can be and the recipe does not."""
        given = dict(hyperparameters)
        accepted = self.parameters()
        if accepted is not None and "random_state" in accepted:
            given.setdefault("random_state", seed)
        return self.cls(**given)

    def fit(self, estimator: Any, features: FeatureMatrix, truth: Truth) -> None:  # noqa: ANN401
        """Fit in place."""
        estimator.fit(self._input(features), truth.target)

    def predict(
        self, estimator: Any, features: FeatureMatrix, classes: tuple[Any, ...]
    ) -> Predictions:  # noqa: ANN401
        """Ask for the values and, where the estimator has them, the probabilities."""
        rows = self._input(features)
        values = _one_per_row(estimator.predict(rows), len(features))
        if self.task != "classification":
            return Predictions(values)
        probabilities = None
        if hasattr(estimator, "predict_proba"):
            probabilities = spread(estimator.predict_proba(rows), estimator.classes_, len(classes))
        return Predictions(values.astype(np.int64), probabilities, classes)

    def contributions(self, estimator: Any, features: FeatureMatrix) -> NDArray[np.float64] | None:  # noqa: ANN401
        """Exact TreeSHAP values (n, p), where the library computes them itself; else None."""
        del estimator, features
        return None

    def save(self, estimator: Any, folder: Path) -> str:  # noqa: ANN401
        """Write the fitted estimator below `folder`; return the file's name."""
        with (folder / "model.pkl").open("wb") as file:
            pickle.dump(estimator, file, protocol=5)
        return "model.pkl"

    def load(self, path: Path) -> Any:  # noqa: ANN401
        """Read what `save` wrote. The file's digest has been checked before."""
        with path.open("rb") as file:
            estimator = pickle.load(file)  # noqa: S301 -- verified against the manifest
        if not isinstance(estimator, self.cls):
            raise ArtifactError(
                f"{path.name} holds a {type(estimator).__name__}, not a {self.cls.__name__}"
            )
        return estimator

    def _input(self, features: FeatureMatrix) -> Any:  # noqa: ANN401 -- frame or array
        return features.frame()


def named_parameters(cls: type) -> frozenset[str] | None:
    """Every name that `cls(...)` takes, following **kwargs up the inheritance; None if any goes."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        if base is object:
            return frozenset(names)
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return frozenset(names)
    return None


def spread(probabilities: Any, seen: Any, count: int) -> NDArray[Any]:  # noqa: ANN401 -- array-likes
    """Put each seen class's column at its own position: a class absent from training gets 0."""
    values = np.asarray(probabilities)
    positions = np.asarray(seen, dtype=np.int64)
    if values.shape[1] == count:
        return values
    full = np.zeros((len(values), count), dtype=values.dtype)
    full[:, positions] = values
    return full


def _one_per_row(values: Any, rows: int) -> NDArray[Any]:  # noqa: ANN401 -- array-like
    flat = np.asarray(values)
    if flat.ndim == 2 and flat.shape[1] == 1:  # noqa: PLR2004 -- a column is a list of rows
        flat = flat[:, 0]
    if flat.shape != (rows,):
        raise DataError(
            f"the estimator's predict returned the shape {flat.shape} for {rows} rows",
            hint="predict must return one value per row",
        )
    return flat
