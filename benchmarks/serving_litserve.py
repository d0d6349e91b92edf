"""What LitServe hosts: the same work as the FastAPI app for all rows that it gathered, or our core."""

import os
from typing import Any

import litserve  # type: ignore[import-not-found]  # installed for this alone
from serving_feast import FeastModel

__all__ = ["CoreApi", "FeastApi", "serve"]

BATCH, WAIT = 64, 0.005  # what it may gather, and for how long (seconds)
RUN = "SERVING_BENCHMARK_RUN"  # LitServe makes the API anew in its worker process


class FeastApi(litserve.LitAPI):  # type: ignore[misc]  # as above
    """Keys in JSON, many at a time, to a pipeline's probabilities."""

    def setup(self, device: str) -> None:
        del device
        self._feast = FeastModel()

    def predict(self, batch: list[dict[str, str]]) -> list[dict[str, Any]]:
        return [
            {"prediction": int(yes > no), "probabilities": {"0": no, "1": yes}}
            for no, yes in self._feast.probabilities(batch)
        ]


class CoreApi(litserve.LitAPI):  # type: ignore[misc]  # as above
    """Keys in JSON, many at a time, to what `lodestar serve-api` says of them."""

    def setup(self, device: str) -> None:
        del device
        from serving_core import Core

        self._core = Core(os.environ[RUN])

    def predict(self, batch: list[dict[str, str]]) -> list[dict[str, Any]]:
        return self._core.answer(batch)


def serve(api: type[Any], host: str, port: int) -> None:
    """One worker and one API process, batching."""
    made = api(max_batch_size=BATCH, batch_timeout=WAIT, api_path="/predict")
    server = litserve.LitServer(made, accelerator="cpu", workers_per_device=1)
    server.run(
        host=host,
        port=port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
