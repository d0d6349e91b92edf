"""Labels that arrive after their predictions: coverage, metrics by time and segment, verdicts."""
