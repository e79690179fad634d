"""The answer of ``POST /v1/analyze``, and the micrograph with what was found drawn on it."""

from typing import TYPE_CHECKING

import numpy as np

from emclean.imaging.readers import Picture
from emclean.imaging.segmentation import stretched
from emclean.report.micrographs import overlay
from serving import schemas, uploads
from serving.model import Loaded

if TYPE_CHECKING:
    from emclean.loop.analysis.picture import Found


def answer(
    facts: schemas.PictureFacts, found: "Found", model: Loaded, seconds: float, marked: str | None
) -> schemas.Analysis:
    """All that is told of a picture; ``facts`` get the pixel size that was used."""
    from emclean.loop.analysis.picture import told

    assert model.analyst is not None
    return schemas.Analysis(
        image=facts.model_copy(update={"pixel_size_nm": found.measured.nm}),
        **told(found, model.analyst.way),
        model_version=model.version,
        label_revision=model.label_revision,
        seconds=round(seconds, 4),
        overlay=marked,
    )


def marked(picture: Picture, found: "Found", model: Loaded) -> str:
    """A PNG data URI of the picture, reduced where it is large, with every object outlined."""
    assert model.analyst is not None
    levels, bright = found.measured.levels, model.analyst.way.settings.bright
    grey = uploads.reduced(stretched(picture.pixels, levels, bright))
    scale = grey.shape[1] / picture.pixels.shape[1]
    columns = {name: np.asarray(found.columns[name]) for name in ("turn_deg", "set_aside", "hand")}
    columns |= {n: scale * np.asarray(found.columns[n]) for n in ("x", "y", "length_px", "width_px")}
    return uploads.data_uri(overlay(grey, (0, 0), columns))
