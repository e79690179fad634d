"""The registered model's code (MLflow's models-from-code): weights are safetensors, nothing is unpickled.

The card's ``task`` says whether they are a detector's, a classifier's (``classes``) or an ``analysis``.

MLflow copies this file beside the weights and runs it when the model is loaded. ``predict`` takes one
picture or a list of them, each a grey or colour array or the path of a file.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.models import set_model


class DetectorModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow has no types
    """A detector, classifier or analysis as MLflow serves it."""

    _skip_type_hint_validation = True  # MLflow would else check pictures as the columns of a table

    def load_context(self, context: Any) -> None:
        """Load the weights and the card."""
        # by name: this file runs inside a model, which carries these parts of the package
        self._card = json.loads(Path(context.artifacts["card"]).read_text(encoding="utf-8"))
        self._readers = import_module("emclean.imaging.readers")
        self._task = self._card.get("task")
        if self._task == "analysis":
            self._windows = import_module("emclean.imaging.windows")
            self._picture = import_module("emclean.loop.analysis.picture")
            self._analyst = self._picture.Analyst.load(context.artifacts["weights"], self._card)
            return
        if self._task == "classes":
            self._answering = import_module("emclean.models.classifiers.answering")
            self._sheets = import_module("emclean.imaging.sheets")
            self._model = import_module("emclean.models.classifiers.engine").load(
                context.artifacts["weights"]
            )
            self._form = self._answering.AnswerForm.of(self._card)
            return
        self._engine = import_module("emclean.models.engine")
        self._knots = import_module("emclean.models.knots")
        self._detector = self._engine.load(context.artifacts["weights"])
        self._line = self._knots.knots_of(self._card)

    # no type hints: MLflow would read them as the signature of a table
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """For each picture a dict of ``boxes [N,4]``, ``categories``, ``scores``, best first.

        They are those of the served model: a score is a probability where the card holds a calibration. Of a
        classifier: ``category`` and ``probabilities`` by class; of an analysis: as ``POST /v1/analyze`` says.
        """
        if self._task == "classes":
            return [self._named(picture) for picture in _several(model_input)]
        if self._task == "analysis":
            return [self._analysed(picture) for picture in _several(model_input)]
        pictures = [self._grey(picture) for picture in _several(model_input)]
        return [self._answer(found) for found in self._engine.predict(self._detector, pictures)]

    def _named(self, picture: Any) -> dict[str, Any]:
        pixels = self._sheets.fitted(self._seen(picture), *self._form.sides)
        found = self._answering.answer(self._model, pixels[None], self._form)[0]
        names = self._card["categories"]
        probabilities = dict(zip(names, found.tolist(), strict=True))
        return {"category": names[int(np.argmax(found))], "probabilities": probabilities}

    def _analysed(self, picture: Any) -> dict[str, Any]:
        if isinstance(picture, str | Path):
            with self._windows.opened(str(picture)) as source:
                return self._told(source)
        pixels = self._readers.of_array(np.asarray(picture))
        return self._told(self._windows.Whole(self._readers.Picture(pixels, 8 * pixels.dtype.itemsize)))

    def _told(self, source: Any) -> dict[str, Any]:
        found = self._picture.analysed(source, self._analyst)
        told: dict[str, Any] = self._picture.told(found, self._analyst.way)
        return told

    def _seen(self, picture: Any) -> Any:
        """Colours ``[H,W,3]`` where the model looks at them, else grey ``[H,W]``."""
        if self._model.spec.channels == 1:
            return self._grey(picture)
        if isinstance(picture, str | Path):
            return self._sheets.read8(self._readers.read_bytes(str(picture)), str(picture), True)
        pixels = np.asarray(picture)
        flat = pixels.ndim == 2
        return (
            np.repeat(self._grey(pixels)[..., None], 3, axis=2) if flat else pixels[..., :3].astype(np.uint8)
        )

    def _grey(self, picture: Any) -> Any:
        if isinstance(picture, str | Path):
            picture = self._readers.read(str(picture)).pixels
        return self._readers.to_grey8(self._readers.of_array(np.asarray(picture)))

    def _answer(self, found: Any) -> dict[str, Any]:
        found = found.take(np.argsort(-found.scores, kind="stable"))
        names = self._card.get("categories", [])
        words = [names[i] if i < len(names) else str(i) for i in found.categories.tolist()]
        scores = self._knots.calibrate(found.scores, self._line)
        return {"boxes": found.boxes.tolist(), "categories": words, "scores": scores.tolist()}


def _several(model_input: Any) -> list[Any]:
    """The pictures of any input form: a table's first column, one picture, or a list of them."""
    if hasattr(model_input, "iloc"):
        return list(model_input.iloc[:, 0])
    if isinstance(model_input, np.ndarray):
        single = model_input.ndim == 2 or (model_input.ndim == 3 and model_input.shape[-1] in (3, 4))
        return [model_input] if single else list(model_input)
    return [model_input] if isinstance(model_input, str | Path) else list(model_input)


set_model(DetectorModel())
