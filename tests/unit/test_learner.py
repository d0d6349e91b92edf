"""What an estimator refuses is the recipe's mistake where its words name a hyperparameter."""

import numpy as np
import pytest
from sklearn.svm import SVC

from lodestar.core.learner import Learner, TrainRows
from lodestar.core.models import family_of
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Truth
from lodestar.errors import DataError, UsageError
from lodestar.interface.learning import FeatureMatrix

ALL = "recipes/x.yaml:2:model.hyperparameters"
PLACES = {"": ALL, "C": f"{ALL}.C", "kernel": f"{ALL}.kernel"}


def rows(*values: float) -> TrainRows:
    features = FeatureMatrix(np.array(values)[:, None], ("x",))
    return TrainRows(SimpleScaler(), features, Truth(np.arange(len(values)) % 2, classes=(0, 1)))


def learner() -> Learner:
    return Learner(family_of(SVC, "classification"), SimpleScaler, 1, PLACES)


def test_a_value_is_told_where_the_recipe_gives_it() -> None:
    with pytest.raises(UsageError, match="SVC refuses: The 'C' parameter") as caught:
        learner().single_training_iteration(rows(1, 2, 3, 4), {"kernel": "rbf", "C": "big"})
    assert caught.value.where == PLACES["C"]


def test_rows_that_are_refused_are_no_mistake_of_the_recipe() -> None:
    with pytest.raises(DataError, match="SVC refuses: Input X contains NaN"):
        learner().single_training_iteration(rows(1, np.nan, 3, 4), {"C": 1.0})
