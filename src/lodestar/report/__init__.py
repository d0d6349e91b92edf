"""One self-contained HTML page per training run: `render(RunReport(...))`."""

from lodestar.report.contents import RunReport, SplitSummary
from lodestar.report.page import render

__all__ = ["RunReport", "SplitSummary", "render"]
