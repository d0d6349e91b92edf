"""Worker processes keep the contract; Ray's are in tests/integration/test_ray.py."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from lodestar.core.tuning.problem import TrialProblem
from lodestar.execution.local import local_executor
from lodestar.interface.execution import TrialExecutor
from lodestar.testing.trials import TrialExecutorContract


class TestProcesses(TrialExecutorContract):
    @pytest.fixture
    def trials_of(self) -> Callable[[TrialProblem], AbstractContextManager[TrialExecutor]]:
        return lambda problem: local_executor(problem, workers=2, threads=1)
