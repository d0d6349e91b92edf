"""Both engines that score a batch's parts keep one contract."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
from tests.ray_places import ray_nodes

from lodestar.execution.local_parts import LocalParts
from lodestar.execution.ray_cluster import connected
from lodestar.execution.ray_parts import RayParts
from lodestar.interface.parts import PartExecutor, ScorerSource
from lodestar.settings.execution import RayCluster
from lodestar.testing.parts import PartExecutorContract

ExecutorOf = Callable[[ScorerSource], AbstractContextManager[PartExecutor]]


class TestLocal(PartExecutorContract):
    @pytest.fixture
    def executor_of(self) -> ExecutorOf:
        return lambda source: nullcontext(LocalParts(source))


@pytest.fixture(scope="module")
def on_two_nodes() -> Iterator[ExecutorOf]:
    """Two nodes with one worker each; the connection is made once."""
    with ray_nodes(1, 1) as cluster:
        settings = RayCluster(address=cluster.address)
        with connected(settings) as ray:
            yield lambda source: RayParts(ray, source, settings)


class TestRay(PartExecutorContract):
    @pytest.fixture
    def executor_of(self, on_two_nodes: ExecutorOf) -> ExecutorOf:
        return on_two_nodes
