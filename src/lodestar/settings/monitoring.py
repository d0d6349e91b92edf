"""What is watched: whether models get better or worse, and whether their rows change."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from lodestar.settings.section import Name, Section, Whole

__all__ = ["AlertThresholds", "Drift", "Labels", "PerformanceMonitoring"]


def _as_float(value: object) -> object:
    """Take `1` where a number is meant; a truth value is none."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Number = Annotated[float, BeforeValidator(_as_float)]
Share = Annotated[Number, Field(ge=0, le=1)]


class AlertThresholds(Section):
    """Relative changes worth a word: 0.02 is 2 % better than what is compared with, -0.01 1 % worse."""

    improvement_threshold: Annotated[Number, Field(ge=0)] = 0.02
    degradation_threshold: Annotated[Number, Field(le=0)] = -0.01


class PerformanceMonitoring(Section):
    """Whether `train` and `evaluate` compare metrics with a baseline and with the champion."""

    enabled: bool = False
    baseline_metrics: dict[Name, Number] = Field(default_factory=dict)
    alert_thresholds: AlertThresholds = AlertThresholds()


class Drift(Section):
    """From when on a change of rows or predictions since training is an alarm.

    `significance` is the share of alarms that may be chance; `psi` the population stability index;
    `null_rate` a difference of rates; `unseen` the share of rows out of range or of new values;
    `vanished` the share of a value that does not come any more. Fewer than `rows` are not judged. A
    served model judges what it was asked every `window_seconds`.
    """

    enabled: bool = True
    significance: Annotated[Number, Field(gt=0, lt=1)] = 0.01
    psi: Annotated[Number, Field(ge=0)] = 0.1
    null_rate: Share = 0.02
    unseen: Share = 0.001
    vanished: Share = 0.02
    rows: Whole = Field(default=30, ge=1)
    window_seconds: Annotated[Number, Field(gt=0)] = 600.0


class Labels(Section):
    """When labels that came later are enough to judge by.

    Fewer than `rows` labelled predictions are not judged, nor a part of the time of whose predictions
    less than `coverage` of the usual share has a label.
    """

    rows: Whole = Field(default=30, ge=2)
    coverage: Share = 0.8
