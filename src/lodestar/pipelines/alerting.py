"""After a pipeline: what it has measured, judged by the alert rules of its environment."""

from typing import Protocol

from lodestar.core.alerts.readings import Measured
from lodestar.factory.alerts import Alerting, AlertOutcome
from lodestar.settings.loading import Environment

__all__ = ["HasMeasured", "raise_alerts"]


class HasMeasured(Protocol):
    """The result of a pipeline that alert rules can watch."""

    def measured(self) -> tuple[Measured, ...]:
        """All that it says in numbers; nothing where it measured nothing."""
        ...


def raise_alerts(environment: Environment, done: HasMeasured) -> AlertOutcome | None:
    """Judge a result by the config's rules and tell the channels; None where there are no rules."""
    alerting = Alerting(environment)
    return alerting.take(done.measured()) if alerting.wanted else None
