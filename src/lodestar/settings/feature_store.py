"""Where features come from: the tables of their past, and what serves their present."""

import re
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.section import Name, Section

__all__ = ["FeastProject", "FeatureStore", "RedisStore"]


class RedisStore(Section):
    """`redis://user:password@host:port/0`; `rediss://` for TLS, several hosts with commas.

    `timeout` (seconds) bounds every call.
    """

    uri: SecretStr
    mode: Literal["single", "cluster", "sentinel"] = "single"
    timeout: float = Field(default=1.0, gt=0, le=60)
    master_name: Name | None = None
    ca_file: Name | None = None


class FeastProject(Section):
    """A Feast project: one of ours, of which `registry` is kept from features/*.yaml, or a team's own.

    `registry` is `postgresql://…` or `sqlite:///path`; `online` is `redis` or `dynamodb` (the sections
    of feature_store), `postgresql://…` or `sqlite:///path`. `repository` is the folder of a team's
    `feature_store.yaml`, which says all of that itself. `timeout` (seconds) bounds every call to an
    online store that has no section of its own.
    """

    project: Name | None = None
    registry: SecretStr | None = None
    online: SecretStr = SecretStr("redis")
    repository: Name | None = None
    timeout: float = Field(default=1.0, gt=0, le=60)

    @model_validator(mode="after")
    def _ours_or_a_teams(self) -> "FeastProject":
        ours = {"project", "registry", "online"} & self.model_fields_set
        if self.repository is not None:
            if ours:
                raise ValueError(
                    f"the repository says {', '.join(sorted(ours))} itself: leave it out, or repository"
                )
            return self
        if self.project is None or self.registry is None:
            raise ValueError("needs project and registry, or the repository of a team")
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", self.project) is None:
            raise ValueError(
                "a Feast project is letters, digits and _, and does not start with a _"
            )
        return self


class FeatureStore(Section):
    """Where features come from: history for learning and batches, the present for serving.

    `offline` names what holds the feature tables. `provider: dynamic` is `feast` where that is
    declared, else `redis` or `dynamodb`, whichever is, else there is no online store.
    """

    provider: Literal["dynamic", "feast", "redis", "dynamodb"] = "dynamic"
    offline: Name | None = None
    feast: FeastProject | None = None
    redis: RedisStore | None = None
    dynamodb: DynamoDBStore | None = None

    @property
    def chosen(self) -> Literal["feast", "redis", "dynamodb"] | None:
        """What holds the present, by what is declared."""
        if self.provider != "dynamic":
            return self.provider
        if self.feast is not None:
            return "feast"
        if self.redis is not None:
            return "redis"
        return None if self.dynamodb is None else "dynamodb"

    @property
    def repository(self) -> str | None:
        """The folder of a team's own Feast repository, if it is chosen."""
        feast = self.feast if self.chosen == "feast" else None
        return None if feast is None else feast.repository

    @model_validator(mode="after")
    def _what_is_chosen_is_declared(self) -> "FeatureStore":
        if self.repository is not None:
            if self.offline is not None:
                raise ValueError("the repository says what holds its tables: leave offline out")
            return self
        if self.offline is None:
            raise ValueError(
                "needs offline, what holds the feature tables: files, postgres, snowflake or bigquery"
            )
        if self.chosen == "feast" and self.feast is None:
            raise ValueError("provider is feast, so the section feast is needed")
        if self.provider == "dynamic" and self.feast is None and self.redis and self.dynamodb:
            raise ValueError("redis and dynamodb are both declared: say which as provider")
        for name in ("redis", "dynamodb"):
            if self._holder == name and getattr(self, name) is None:
                raise ValueError(
                    f"the online store is {name}, so the section {name} is needed, or another "
                    "feast.online or provider"
                )
        if self.chosen == "feast" and self._holder == "dynamodb":
            self._require_what_feast_finds()
        return self

    def _require_what_feast_finds(self) -> None:
        """Feast makes a client of its own, from the region and AWS's own chain alone."""
        given = self.dynamodb
        if given is not None and given.region is None:
            raise ValueError("Feast needs the region of dynamodb said here")
        if given is not None and (given.access_key_id or given.profile):
            raise ValueError(
                "Feast takes credentials from AWS's own chain alone: leave access_key_id and profile out"
            )

    @property
    def _holder(self) -> str | None:
        """The section that says where the online rows are, or a URI."""
        if self.chosen == "feast" and self.feast is not None:
            return self.feast.online.get_secret_value()
        return self.chosen
