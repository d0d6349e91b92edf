"""Which hyperparameters matter: those whose good values are not its usual ones."""

import optuna
import pytest
from optuna.trial import TrialState
from tests.searching import Script, between, metric_of, searching

from lodestar.core.tuning.importances import FEWEST_TRIALS, importances_of
from lodestar.core.tuning.result import SearchLimits, described
from lodestar.interface.execution import TrialTask

SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "rate": optuna.distributions.FloatDistribution(0.01, 1.0, log=True),
    "depth": optuna.distributions.IntDistribution(1, 9),
    "kind": optuna.distributions.CategoricalDistribution(["a", None]),
}


def study_of(trials: int, *, matters: bool = True) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, (trial.params["rate"] - 0.1) ** 2 if matters else 1.0)
    return study


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_what_decides_the_score_is_the_most_important() -> None:
    found = importances_of(study_of(60))
    assert list(found) == ["rate", *sorted({"depth", "kind"}, key=lambda name: -found[name])]
    assert found["rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "study", [study_of(0), study_of(FEWEST_TRIALS - 1), study_of(30, matters=False)]
)
def test_where_there_is_nothing_to_say_nothing_is_said(study: optuna.Study) -> None:
    assert importances_of(study) == {}


def test_pruned_trials_do_not_count() -> None:
    study = study_of(FEWEST_TRIALS)
    found = importances_of(study)
    trial = study.ask(SPACE)
    trial.report(-5.0, 10)
    study.tell(trial, state=TrialState.PRUNED)
    assert importances_of(study) == found
    fewer = study_of(FEWEST_TRIALS - 1)
    fewer.tell(fewer.ask(SPACE), state=TrialState.PRUNED)
    assert importances_of(fewer) == {}


def test_a_search_tells_them_and_the_artifact_keeps_them() -> None:
    def hill(task: TrialTask) -> float:
        return float(0.9 - (task.hyperparameters["x"] - 0.3) ** 2)

    limits = SearchLimits(n_trials=30, seconds=60, candidates=1, splits=1)
    space = {"x": between(-1.0, 1.0), "y": between(0.0, 1.0)}
    result = searching(Script(hill), space, metric_of("roc_auc"), limits).run()
    assert next(iter(result.importances)) == "x"
    assert described(result)["parameter_importances"] == result.importances
