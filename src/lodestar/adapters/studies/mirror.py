"""A study that lives in memory and is written to a database trial by trial, in one transaction each.

Optuna writes every parameter and every report by itself, some thirty transactions a trial, and reads as
often what nobody else has written: one command at a time runs a study.
"""

from collections.abc import Sequence
from typing import Any

from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import TrialState

__all__ = ["Mirrored"]


class Mirrored(InMemoryStorage):
    """Optuna's storage in memory for one study, with what the database holds of it.

    A trial is in the database, whole, as soon as it has ended; one that a kill ended never is.
    """

    def __init__(self, database: RDBStorage, there: int) -> None:
        super().__init__()
        self._database = database
        self._there = there
        name, directions = (
            database.get_study_name_from_id(there),
            database.get_study_directions(there),
        )
        here = self.create_new_study(directions, name)
        for key, value in database.get_study_user_attrs(there).items():
            super().set_study_user_attr(here, key, value)
        for key, value in database.get_study_system_attrs(there).items():
            super().set_study_system_attr(here, key, value)
        for trial in database.get_all_trials(there, deepcopy=False):
            if trial.state.is_finished():
                self.create_new_trial(here, template_trial=trial)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 -- Optuna's signature
        """Here and in the database."""
        super().set_study_user_attr(study_id, key, value)
        self._database.set_study_user_attr(self._there, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401 -- Optuna's signature
        """Here and in the database."""
        super().set_study_system_attr(study_id, key, value)
        self._database.set_study_system_attr(self._there, key, value)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Here; with its end the whole trial goes to the database."""
        told = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self._database.create_new_trial(self._there, template_trial=self.get_trial(trial_id))
        return told
