"""What the peers that use Feast have in common: its features, and a pipeline of scikit-learn."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FeastModel"]

FEATURES = {
    "user_demographics": ("age", "country_code"),
    "user_purchase_summary": ("ltv", "total_purchase_count"),
    "product_details": ("price", "category", "brand"),
    "session_summary": ("time_on_page_seconds", "click_count"),
}
NUMBERS = ("age", "ltv", "total_purchase_count", "price", "time_on_page_seconds", "click_count")
TEXTS = ("country_code", "category", "brand")


class FeastModel:
    """Keys in, probabilities of both classes out: Feast's `get_online_features` and a pipeline."""

    def __init__(self) -> None:
        import feast
        import joblib

        self._store: Any = feast.FeatureStore(repo_path=".")
        self._model: Any = joblib.load("peer.joblib")
        self._names = [f"{view}:{name}" for view, names in FEATURES.items() for name in names]

    def probabilities(self, keys: Sequence[Mapping[str, str]]) -> list[list[float]]:
        """One pair per entity, in order."""
        found = self._store.get_online_features(features=self._names, entity_rows=list(keys))
        frame = found.to_df()[[*NUMBERS, *TEXTS]].astype(dict.fromkeys(NUMBERS, "float64"))
        told: list[list[float]] = self._model.predict_proba(frame).tolist()
        return told
