"""The engine of this process keeps the contract; Ray's is in tests/integration/test_ray.py."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from lodestar.execution.local_parts import LocalParts
from lodestar.interface.parts import PartExecutor, ScorerSource
from lodestar.testing.parts import PartExecutorContract


class TestLocal(PartExecutorContract):
    @pytest.fixture
    def executor_of(self) -> Callable[[ScorerSource], AbstractContextManager[PartExecutor]]:
        return lambda source: nullcontext(LocalParts(source))
