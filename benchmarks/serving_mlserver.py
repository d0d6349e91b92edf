"""The runtime that MLServer loads: the same work as the FastAPI app, for all rows that it gathered."""

from mlserver import MLModel  # type: ignore[import-not-found]  # installed for this alone
from mlserver.types import (  # type: ignore[import-not-found]  # as above
    InferenceRequest,
    InferenceResponse,
    ResponseOutput,
)
from serving_feast import FeastModel

__all__ = ["FeastRuntime"]


class FeastRuntime(MLModel):  # type: ignore[misc]  # as above
    """Keys as columns of text in, both classes' probabilities out."""

    async def load(self) -> bool:
        self._feast = FeastModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {item.name: _texts(item.data.root) for item in payload.inputs}
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        told = self._feast.probabilities(rows)
        output = ResponseOutput(
            name="probabilities",
            shape=[len(told), 2],
            datatype="FP64",
            data=[value for pair in told for value in pair],
        )
        return InferenceResponse(model_name=self.name, outputs=[output])


def _texts(values: list[str | bytes]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]
