"""What does the work: this machine, or the nodes of a Ray cluster."""

import re
from typing import Literal

from pydantic import Field, field_validator

from lodestar.settings.section import Name, Names, Section, Whole

__all__ = ["Execution", "RayCluster"]


class RayCluster(Section):
    """`address` is `host:port` of a cluster's head; without one, Ray runs on this machine alone.

    `workers` is one per `cpus_per_worker` of the cluster's processors where it is not given.
    `memory_mb` is what Ray reserves for a worker when it places it; `object_store_mb` is what rows on
    their way may take here, without an address. `attempts`: how often a part is tried that ends its
    worker. `timeout` (seconds) bounds reaching the cluster, and waiting for a first worker.
    """

    address: Name | None = None
    workers: Whole | None = Field(default=None, ge=1)
    cpus_per_worker: Whole = Field(default=1, ge=1)
    memory_mb: Whole | None = Field(default=None, ge=1)
    object_store_mb: Whole | None = Field(default=None, ge=80)
    attempts: Whole = Field(default=3, ge=1, le=100)
    timeout: Whole = Field(default=60, ge=1)

    @field_validator("address")
    @classmethod
    def _a_host_and_a_port(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(r"[^\s:/@]+:[0-9]{1,5}", value) is None:
            raise ValueError(
                "must be host:port, that of the cluster's head (6379 where not chosen)"
            )
        return value


class Execution(Section):
    """What scores batches and runs trials; recipe and artifact do not know.

    `partition_by`: columns by whose values a server's rows are divided among workers, the first of them
    that a query has; without, by where they lie, or by an entity key.
    """

    engine: Literal["local", "ray"] = "local"
    partition_by: Names = ()
    ray: RayCluster = RayCluster()
