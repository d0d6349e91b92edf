"""Ray clusters of several nodes on this machine, on 127.0.0.1 alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lodestar.execution.ray_cluster import QUIET, alone

__all__ = ["ray_nodes"]


@contextmanager
def ray_nodes(*cpus: int) -> Iterator[Any]:
    """A cluster whose head has no processors, and a node for each number of them."""
    os.environ |= QUIET | alone()  # before Ray is imported for the first time
    from ray.cluster_utils import Cluster

    quiet = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
    try:
        for count in cpus:
            cluster.add_node(num_cpus=count, object_store_memory=100 << 20)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray's own helper
