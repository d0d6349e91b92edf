"""The config's section as the limits that windows are judged by."""

from typing import TYPE_CHECKING

from lodestar.core.drift.verdict import Limits

# The artifact carries this package, and no settings.
if TYPE_CHECKING:
    from lodestar.settings.monitoring import Drift

__all__ = ["limits_of"]


def limits_of(section: "Drift") -> Limits:
    """What the config says of alarms."""
    return Limits(
        significance=section.significance,
        psi=section.psi,
        null_rate=section.null_rate,
        unseen=section.unseen,
        vanished=section.vanished,
        rows=section.rows,
    )
