"""How much each hyperparameter has to do with a trial being one of the best."""

import warnings

import optuna
from optuna.trial import TrialState

__all__ = ["FEWEST_TRIALS", "importances_of"]

FEWEST_TRIALS = 10


def importances_of(study: optuna.Study) -> dict[str, float]:
    """Each hyperparameter's share, the largest first; together 1. Empty where there is nothing to say.

    PED-ANOVA over the complete trials: how far the values of the best tenth are from those of all
    (Watanabe, Bansal & Hutter 2023). Trials that were pruned or failed do not count.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST_TRIALS:
        return {}
    with warnings.catch_warnings():
        # Optuna warns where it gives all of them the same: too few trials, or all as good.
        warnings.simplefilter("error", UserWarning)
        try:
            return optuna.importance.get_param_importances(study)
        except UserWarning:
            return {}
