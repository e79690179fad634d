"""The HTTP interface over one model holder; it knows nothing of Ray, so that any ASGI server can run it."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import emclean
from emclean.errors import DataError
from emclean.imaging import readers
from serving import figures, schemas
from serving.figures import Figures, Told
from serving.labelling import find_picture, names_of, prediction
from serving.limits import BodyLimit, TokenGuard, max_bytes, read_token
from serving.metrics import Measured, Metrics
from serving.model import Loaded, ModelHolder

PAGE = Path(__file__).with_name("page")
RAW = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that are no form of files: curl gives the second to everything that it is not told."""

PREVIEW_SIDE = 1600
LOOPBACK_HOSTS = ["127.0.0.1", "localhost"]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem} for status in (401, 404, 413, 415, 422, 503)
}


@dataclass(frozen=True)
class Settings:
    """What one replica is told: workspace, whether and where there is a token, limits, its own name.

    ``figures`` is the folder in which it shares its counts with the other replicas, if there are any.
    """

    workspace: str = "workspace"
    require_token: bool = True
    token_file: str | None = None
    replica: str = "local"
    figures: str | None = None
    max_bytes: int = 0
    max_pixels: int = 100_000_000
    min_score: float = 0.3

    def limit(self) -> int:
        """The bound on a request's body in bytes."""
        return self.max_bytes or max_bytes()


class Refusal(Exception):
    """A request that is answered with a :class:`~serving.schemas.Problem`."""

    def __init__(self, status: int, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fix = status, code, message, fix


class Service:
    """What the routes share: the model, the settings, the counts, and one thread for pictures.

    One thread a replica bounds memory however many uploads wait; replicas are what runs side by side.
    """

    def __init__(self, holder: ModelHolder, settings: Settings) -> None:
        self.holder = holder
        self.settings = settings
        self.metrics = Metrics()
        self.figures = Figures(Path(settings.figures) if settings.figures else None, settings.replica)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="picture")

    def model(self) -> Loaded:
        """The model in use, read once a request."""
        model = self.holder.current
        if model is None:
            raise Refusal(503, "no_model", "No model is loaded.", "See /healthz; deploy a model version.")
        return model

    async def detect(self, data: bytes, min_score: float | None, preview: bool) -> schemas.Detections:
        """Read a picture and search it, away from the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._detect, data, min_score, preview)

    def _detect(self, data: bytes, min_score: float | None, preview: bool) -> schemas.Detections:
        since, model = perf_counter(), self.model()
        picture = readers.read(data, "upload", self.settings.limit(), self.settings.max_pixels)
        grey = readers.to_grey8(picture.pixels)  # [H,W]
        found = self.holder.detect(model, grey)
        found = found.above(self.settings.min_score if min_score is None else min_score)
        self.metrics.found(len(found))
        height, width = grey.shape
        return schemas.Detections(
            image=schemas.PictureFacts(
                image_id=readers.image_id(data),
                width=width,
                height=height,
                bit_depth=picture.bit_depth,
                pixel_size_nm=picture.pixel_size_nm,
            ),
            detections=[
                schemas.Box(box=tuple(box), category=model.categories[category], score=score)
                for box, category, score in zip(
                    found.boxes.tolist(), found.categories.tolist(), found.scores.tolist(), strict=True
                )
            ],
            model_version=model.version,
            label_revision=model.label_revision,
            calibrated=bool(len(model.knots)),
            seconds=round(perf_counter() - since, 4),
            preview=_preview(grey) if preview else None,
        )

    async def predict(self, request: schemas.PredictRequest) -> list[dict[str, Any]]:
        """Predictions for Label Studio's tasks, one after another."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._predict, request)

    def _predict(self, request: schemas.PredictRequest) -> list[dict[str, Any]]:
        model, names = self.model(), names_of(request.label_config)
        workspace = Path(self.settings.workspace)
        pictures = [find_picture(workspace, task.data) for task in request.tasks]
        results = []
        for pixels in pictures:
            found = self.holder.detect(model, np.asarray(pixels)).above(self.settings.min_score)
            size = (pixels.shape[1], pixels.shape[0])
            results.append(prediction(found, size, model.categories, names, model.version))
        return results

    def told(self, alive: bool = True) -> Told:
        """What this replica has counted, and the model that it holds."""
        held = self.holder.current
        counts = self.metrics.counts(self.holder.swaps, self.holder.failures)
        return Told(counts, held.version if held else "", alive)

    def counted(self) -> str:
        """The figures of all replicas."""
        return figures.text([self.told(), *self.figures.others()])

    async def tell(self) -> None:
        """Let the other replicas know, again and again; the last word is that this one has ended."""
        try:
            while True:
                await asyncio.to_thread(self.figures.write, self.told())
                await asyncio.sleep(figures.EVERY_S)
        finally:
            self.figures.write(self.told(alive=False))

    def health(self, may_know: bool) -> schemas.Health:
        """How this replica does; a failure's reason and the model's identity are for those who may know."""
        model, failure = self.holder.current, self.holder.failure
        told = None
        if failure is not None:
            error = failure["error"] if may_know else "Send the token to see why."
            told = schemas.Failure(**{**failure, "error": error})
        status = "no model" if model is None else "degraded" if failure else "ok"
        return schemas.Health(
            status=status,
            name=model.name if model and may_know else None,
            model_version=model.version if model else None,
            sha256=model.sha256 if model and may_know else None,
            replica=self.settings.replica,
            last_failure=told,
        )


def _preview(grey: NDArray[np.uint8]) -> str:
    image = Image.fromarray(grey)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


async def picture_bytes(request: Request) -> bytes:
    """The picture in a request: the body itself, or the first file of a multipart form."""
    kind = request.headers.get("content-type", "application/octet-stream").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        data = await _first_file(request)
    elif kind.startswith("image/") or kind in RAW:
        data = await request.body()
    else:
        fix = "Send a form, or bytes as image/png, image/jpeg, image/tiff or application/octet-stream."
        raise Refusal(415, "unsupported_media_type", f"{kind} is not a picture.", fix)
    if not data:
        raise Refusal(422, "empty", "The request holds no picture.", "Send the file's bytes.")
    return data


async def _first_file(request: Request) -> bytes:
    async with request.form(max_files=1, max_fields=16) as form:
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read()
    return b""


def create_api(holder: ModelHolder, settings: Settings) -> FastAPI:
    """The application: routes, errors in one form, and the guards around them (outermost last)."""
    service = Service(holder, settings)
    # No interactive docs: their page would load scripts from a foreign host. /openapi.json stays.
    api = FastAPI(
        title="emclean",
        version=emclean.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _: _telling(service),
    )
    _add_errors(api)
    _add_detection(api, service)
    _add_state(api, service)
    _add_labelling(api, service)
    api.mount("/page", StaticFiles(directory=PAGE), name="page")
    guard = TokenGuard(api, lambda: read_token(settings.token_file))
    api.add_middleware(BodyLimit, limit=settings.limit())
    if settings.require_token:
        api.add_middleware(TokenGuard, token=lambda: read_token(settings.token_file))
    else:
        # A page of another site could reach us under its own name (DNS rebinding); it cannot fake this one.
        api.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_HOSTS)
    api.add_middleware(Measured, metrics=service.metrics)
    api.state.may_know = lambda request: not settings.require_token or guard.authorised(request.scope)
    return api


@asynccontextmanager
async def _telling(service: Service) -> AsyncIterator[None]:
    """While the application runs, its figures are shared with the other replicas."""
    if not service.figures.shared:
        yield
        return
    telling = asyncio.create_task(service.tell())
    try:
        yield
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling


def _add_errors(api: FastAPI) -> None:
    def answer(status: int, code: str, message: str, fix: str = "") -> JSONResponse:
        return JSONResponse(schemas.Problem(code=code, message=message, fix=fix).model_dump(), status)

    @api.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return answer(error.status, error.code, error.message, error.fix)

    @api.exception_handler(DataError)
    async def bad_input(_: Request, error: DataError) -> JSONResponse:
        return answer(422, "unusable_input", f"{error.where}: {error.what}".strip(": "), error.fix)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return answer(422, "invalid_request", faults[:500])

    @api.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, "http_error", str(error.detail))


UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def _add_detection(api: FastAPI, service: Service) -> None:
    @api.post("/v1/detect", responses=ERRORS, openapi_extra=UPLOAD, tags=["model"])
    async def detect(
        request: Request,
        min_score: Annotated[float | None, Query(ge=0, le=1)] = None,
        preview: bool = False,
    ) -> schemas.Detections:
        """Boxes of the objects in a PNG, JPEG or TIFF picture, as raw bytes or as a form's first file."""
        service.model()
        return await service.detect(await picture_bytes(request), min_score, preview)

    @api.post("/v1/classify", responses=ERRORS, openapi_extra=UPLOAD, tags=["model"])
    async def classify() -> Response:
        """The class of a picture; answered only where a classifier is served."""
        fix = "Use /v1/detect."
        raise Refusal(404, "no_classifier", "This service holds a detector, not a classifier.", fix)

    @api.get("/v1/model", responses=ERRORS, tags=["model"])
    async def model() -> schemas.ModelFacts:
        """Which model answers here."""
        held = service.model()
        metrics = {name: held.card[name] for name in ("ap50", "cost_share", "metrics") if name in held.card}
        return schemas.ModelFacts(
            name=held.name,
            model_version=held.version,
            sha256=held.sha256,
            label_revision=held.label_revision,
            family=str(held.detector.spec.family),
            categories=list(held.categories),
            metrics=metrics,
            calibrated=bool(len(held.knots)),
            loaded_at=held.loaded_at,
            replica=service.settings.replica,
        )


def _add_state(api: FastAPI, service: Service) -> None:
    @api.get("/healthz", tags=["state"], responses={503: {"model": schemas.Health}})
    async def healthz(request: Request) -> JSONResponse:
        """Whether a model is there, and whether the last swap failed."""
        health = service.health(api.state.may_know(request))
        return JSONResponse(health.model_dump(), 503 if health.model_version is None else 200)

    @api.get("/metrics", tags=["state"], response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Counts of all replicas, in Prometheus' form."""
        text = await asyncio.to_thread(service.counted)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @api.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; connect-src 'self'"
        )
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return FileResponse(PAGE / "index.html", headers=headers)


def _add_labelling(api: FastAPI, service: Service) -> None:
    @api.get("/health", tags=["Label Studio"])
    async def health() -> dict[str, str]:
        """Label Studio asks this before it connects."""
        return {"status": "UP", "model_class": "emclean"}

    @api.post("/setup", tags=["Label Studio"], responses=ERRORS)
    async def setup(_: schemas.SetupRequest) -> schemas.SetupAnswer:
        """Label Studio calls this when it connects; nothing is set up."""
        held = service.holder.current
        return schemas.SetupAnswer(model_version=held.version if held else None)

    @api.post("/predict", tags=["Label Studio"], responses=ERRORS)
    async def predict(request: schemas.PredictRequest) -> schemas.PredictAnswer:
        """Boxes for a labelling page; pictures are found by image id, no address is followed."""
        return schemas.PredictAnswer(results=await service.predict(request))
