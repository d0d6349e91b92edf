"""Trained parts as files: native formats where the library has one, pickle where it has none."""

import json
import pickle
from pathlib import Path

from lodestar.artifact.contents import ArtifactContents, Component
from lodestar.core.fitted import FittedModel
from lodestar.core.models import family_of, import_class
from lodestar.core.preprocessor import SimpleScaler, TransformerPreprocessor
from lodestar.interface.learning import Preprocessor

__all__ = ["load_model", "save_components"]

SIMPLE_SCALER = "simple_scaler"


def save_components(
    model: FittedModel, *, model_class_path: str, folder: Path
) -> tuple[Component, Component]:
    """Write model and preprocessor below `folder`; return what they are."""
    folder.mkdir(parents=True)
    file = model.family.save(model.estimator, folder)
    return (
        Component(model_class_path, model.family.name, file),
        _save_preprocessor(model.preprocessor, folder),
    )


def load_model(contents: ArtifactContents, folder: Path) -> FittedModel:
    """Read them back. The folder has been verified."""
    component = contents.trained_model
    # The allow-list was asked when the recipe was trained; the digest vouches for it since.
    cls = import_class(component.class_path, ["*"], where="the artifact", methods=())
    family = family_of(cls, contents.target.task)
    return FittedModel(
        preprocessor=_load_preprocessor(contents.trained_preprocessor, folder),
        estimator=family.load(folder / component.file),
        family=family,
        classes=contents.target.classes,
    )


def _save_preprocessor(preprocessor: Preprocessor, folder: Path) -> Component:
    if isinstance(preprocessor, SimpleScaler):
        text = json.dumps(preprocessor.to_json(), ensure_ascii=False)
        (folder / "preprocessor.json").write_text(text, encoding="utf-8")
        return Component(
            "lodestar.core.preprocessor.SimpleScaler", SIMPLE_SCALER, "preprocessor.json"
        )
    if not isinstance(preprocessor, TransformerPreprocessor):
        raise TypeError(type(preprocessor).__name__)
    transformer = preprocessor.transformer
    with (folder / "preprocessor.pkl").open("wb") as file:
        pickle.dump(transformer, file, protocol=5)
    cls = type(transformer)
    return Component(f"{cls.__module__}.{cls.__qualname__}", "transformer", "preprocessor.pkl")


def _load_preprocessor(component: Component, folder: Path) -> Preprocessor:
    path = folder / component.file
    if component.kind == SIMPLE_SCALER:
        return SimpleScaler.from_json(json.loads(path.read_text(encoding="utf-8")))
    with path.open("rb") as file:
        return TransformerPreprocessor(pickle.load(file))  # noqa: S301 -- verified against the manifest
