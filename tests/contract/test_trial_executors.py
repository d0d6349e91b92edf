"""Worker processes keep the contract; Ray's are in tests/integration/test_ray.py."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from tests.otlp_receiver import receiver

from lodestar.adapters.otlp import Traces
from lodestar.core.tuning.problem import TrialProblem
from lodestar.execution.local import local_executor
from lodestar.execution.traced import traced_trials
from lodestar.interface.execution import TrialExecutor
from lodestar.settings.tracing import Tracing
from lodestar.testing.trials import TrialExecutorContract


class TestProcesses(TrialExecutorContract):
    @pytest.fixture
    def trials_of(self) -> Callable[[TrialProblem], AbstractContextManager[TrialExecutor]]:
        return lambda problem: local_executor(problem, workers=2, threads=1)


class TestTracedTrials(TrialExecutorContract):
    """Whoever traces trials changes nothing of them."""

    @pytest.fixture
    def trials_of(self) -> Callable[[TrialProblem], AbstractContextManager[TrialExecutor]]:
        @contextmanager
        def traced(problem: TrialProblem) -> Iterator[TrialExecutor]:
            with receiver() as at, local_executor(problem, workers=2, threads=1) as executor:
                traces = Traces(Tracing(enabled=True, endpoint=at.url), share=1.0, service="test")
                root = traces.begin("search")
                yield traced_trials(executor, root)
                root.end()
                assert traces.close(seconds=10)
                assert len(at.spans) > 1

        return traced
