"""MLflow's plugins without one that costs every command seconds."""

import sys
import warnings

__all__ = ["load_header_providers"]

REGISTRY = "mlflow.tracking.request_header.registry"


def load_header_providers() -> None:
    """Let MLflow find its providers of request headers now, all but Feast's.

    Feast's adds a token only while Feast itself calls MLflow, and MLflow would import all of Feast for
    it before its first request.
    """
    if REGISTRY in sys.modules or "feast" in sys.modules:
        return
    sys.modules["feast"] = None  # type: ignore[assignment]  # Python's own way to say: not to be found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it was not found
            import mlflow.tracking.request_header.registry  # noqa: F401 -- for what it does
    finally:
        del sys.modules["feast"]
