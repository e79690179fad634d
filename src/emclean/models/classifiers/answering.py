"""A classifier's answer for pictures, as its model card asks: for the service and the registered model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.errors import ServingError
from emclean.models.classifiers import engine
from emclean.models.classifiers.calibrated import calibrate, temperature_of

TASK = "classes"
"""The ``task`` in the model card of a classifier."""


@dataclass(frozen=True)
class AnswerForm:
    """What a model card says of answers.

    Pictures are brought to ``sides`` (height, width); with ``mirror`` the answer is the mean over picture and
    mirror image, which is of the other class; ``temperature`` calibrates, where there is one.
    """

    sides: tuple[int, int]
    mirror: bool = False
    temperature: float | None = None

    @staticmethod
    def of(card: Mapping[str, Any]) -> "AnswerForm":
        """The form in a model card; :class:`ServingError` names what is wrong with it."""
        try:
            height, width = (int(side) for side in card["sides"])
            temperature = temperature_of(card)
        except (KeyError, TypeError, ValueError) as error:
            fix = "Register the model again."
            raise ServingError(
                f"sides or temperature cannot be used ({error}).", "model card", fix
            ) from error
        if min(height, width) < 1:
            raise ServingError("sides must be above 0.", "model card", "Register the model again.")
        return AnswerForm((height, width), bool(card.get("mirror")), temperature)


def answer(model: engine.Ensemble, pictures: NDArray[np.uint8], form: AnswerForm) -> NDArray[np.float64]:
    """Probabilities ``[n,K]`` of uint8 pictures ``[n,H,W]`` or ``[n,H,W,3]`` of the form's sides."""
    found = engine.predict(model, pictures)
    if form.mirror:
        found = (found + engine.predict(model, np.ascontiguousarray(pictures[:, :, ::-1]))[:, ::-1]) / 2
    return calibrate(found, form.temperature)
