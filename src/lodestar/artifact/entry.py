"""What plain MLflow runs: this file is copied into each artifact as its model code."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from lodestar.artifact.wrapper import PyfuncWrapper, load_wrapper


class LodestarModel(PythonModel):
    """The wrapped artifact as an MLflow python_function."""

    wrapper: PyfuncWrapper

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load the artifact that this file lies in; MLflow adds one file to downloads."""
        del context
        folder = Path(__file__).resolve().parent
        self.wrapper, _ = load_wrapper(folder, ignored=frozenset({"registered_model_meta"}))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 -- a frame, or a mapping of frames when intermediates are asked for
        """Predict a frame; `params`: run_mode, return_intermediate."""
        del context
        return self.wrapper.predict(model_input, params)


set_model(LodestarModel())
