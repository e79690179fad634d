"""What the served model takes and gives, as documented values; they make up the OpenAPI description."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

NAME = "Name in the model registry, within which versions count; null where the card names none."
TOLD = "Told only to those who may use the model."


class Answer(BaseModel):
    """An answer that refuses fields nobody documented."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Box(Answer):
    """One object found in a picture."""

    box: tuple[float, float, float, float] = Field(
        description="Corners x1, y1, x2, y2 in pixels of the picture."
    )
    category: str
    score: float = Field(ge=0, le=1, description="Probability that the box is right, where calibrated.")


class PictureFacts(Answer):
    """What was read of the picture."""

    image_id: str = Field(description="First 16 hex digits of the SHA-256 of the file's bytes.")
    width: int
    height: int
    bit_depth: int
    pixel_size_nm: float | None = None


class Detections(Answer):
    """The answer of ``POST /v1/detect``, best score first."""

    image: PictureFacts
    detections: list[Box]
    model_version: str
    label_revision: str | None = Field(description="Revision of the labels that the model was trained on.")
    calibrated: bool = Field(description="Whether scores are calibrated probabilities.")
    seconds: float
    preview: str | None = Field(None, description="A PNG data URI of the picture in 8 bits, when asked for.")


class Classification(Answer):
    """The answer of ``POST /v1/classify``."""

    image: PictureFacts
    category: str = Field(description="The likeliest class.")
    probability: float = Field(ge=0, le=1)
    probabilities: dict[str, float] = Field(description="Of every class; they sum to 1.")
    model_version: str
    label_revision: str | None = Field(description="Revision of the labels that the model was trained on.")
    calibrated: bool = Field(description="Whether probabilities were calibrated on an expert's answers.")
    seconds: float
    preview: str | None = Field(None, description="A PNG data URI of the picture in 8 bits, when asked for.")


class Particle(Answer):
    """One object of a micrograph; lengths are those of its ellipse."""

    particle: int = Field(description="Its number in the picture, from 1.")
    x: float
    y: float
    box: tuple[float, float, float, float] = Field(
        description="Corners x1, y1, x2, y2 in pixels of the picture."
    )
    length_px: float
    width_px: float
    length_nm: float | None = Field(description="Null where no pixel size is known.")
    width_nm: float | None
    turn_deg: float = Field(description="Pose: the long axis from upright; positive: its top lies right.")
    set_aside: str | None = Field(description="Why it does not count: border, debris, cluster, unusable.")
    hand: str | None = Field(description="left or right, as called; null where it is set aside.")
    p_usable: float | None = Field(description="Probability that the pose shows the hand.")
    p_left: float | None = Field(description="Probability of being left-handed.")


class ParticleCounts(Answer):
    """How many there are: usable ones (``particles``), by the hand called, and those set aside by reason."""

    particles: int
    left: int
    right: int
    border: int
    debris: int
    cluster: int
    unusable: int


class LeftShare(Answer):
    """The left share of the usable particles, 0-1, each with its interval; null where it is not known."""

    naive: float | None = Field(description="As counted.")
    naive_low: float | None
    naive_high: float | None
    corrected: float | None = Field(description="Without the classifiers' known mistakes.")
    low: float | None
    high: float | None
    note: str = Field(description="What must be known beside the figures, in a sentence, or empty.")


class Analysis(Answer):
    """The answer of ``POST /v1/analyze``."""

    image: PictureFacts
    particles: list[Particle]
    counts: ParticleCounts
    left_share: LeftShare
    confidence: float = Field(description="That of the intervals.")
    model_version: str
    label_revision: str | None = Field(description="Digest of the labels that the model was trained on.")
    seconds: float
    overlay: str | None = Field(None, description="A PNG data URI with every object marked, when asked for.")


class ModelFacts(Answer):
    """The answer of ``GET /v1/model``: which model this replica serves."""

    name: str | None = Field(description=NAME)
    model_version: str
    sha256: str = Field(description="SHA-256 of the file of weights, in hex digits.")
    label_revision: str | None
    task: str = Field(description="``boxes`` (use /v1/detect), ``classes`` (/v1/classify) or ``analysis``.")
    family: str
    categories: list[str]
    metrics: dict[str, Any]
    calibrated: bool
    loaded_at: str
    replica: str


class Failure(Answer):
    """A version that could not be loaded; the one before goes on."""

    model_version: str
    error: str
    at: str
    attempt: str = Field("", description="Which deployment tried it.")


class Health(Answer):
    """The answer of ``GET /healthz``; ``status`` is ``ok``, ``degraded`` (a swap failed) or ``no model``."""

    status: str
    name: str | None = Field(None, description=f"{NAME} {TOLD}")
    model_version: str | None
    sha256: str | None = Field(None, description=f"SHA-256 of the file of weights, in hex digits. {TOLD}")
    replica: str
    last_failure: Failure | None = None


class Problem(Answer):
    """Every error's body: a short code, what was wrong, and what to do."""

    code: str
    message: str
    fix: str = ""


class SetupRequest(BaseModel):
    """Label Studio's ``/setup``; its access token is neither kept nor used."""

    project: str | int | None = None


class SetupAnswer(Answer):
    """The version that Label Studio shows beside our predictions."""

    model_version: str | None


class LabellingTask(BaseModel):
    """One task as Label Studio sends it; its ``data.image_id`` names the picture in the workspace."""

    id: int | None = None
    data: dict[str, Any] = {}


class PredictRequest(BaseModel):
    """Label Studio's ``/predict``."""

    tasks: list[LabellingTask] = Field(max_length=64)
    label_config: str | None = Field(None, max_length=100_000)


class PredictAnswer(Answer):
    """Predictions in Label Studio's own form, one per task."""

    results: list[dict[str, Any]]
