"""The HTTP interface over one model holder; it knows nothing of Ray, so that any ASGI server can run it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, TypeVar, TypeVarTuple

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import emclean
from emclean.errors import DataError
from emclean.imaging import readers
from emclean.imaging.windows import Whole
from serving import figures, micrographs, schemas, uploads
from serving.figures import Figures, Told
from serving.labelling import choice_names_of, chosen, find_picture, names_of, prediction
from serving.limits import BodyLimit, TokenGuard, max_bytes, read_token
from serving.metrics import Measured, Metrics
from serving.model import Loaded, ModelHolder
from serving.uploads import ERRORS, UPLOAD, Refusal, picture_bytes

PAGE = Path(__file__).with_name("page")
LOOPBACK_HOSTS = ["127.0.0.1", "localhost"]

T = TypeVar("T")
Given = TypeVarTuple("Given")


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
    max_analysed: int = 25_000_000
    min_score: float = 0.3

    def limit(self) -> int:
        """The bound on a request's body in bytes."""
        return self.max_bytes or max_bytes()


KINDS = {
    "boxes": ("detector", "a detector", "/v1/detect"),
    "classes": ("classifier", "a classifier", "/v1/classify"),
    "analysis": ("analysis", "an analysis of micrographs", "/v1/analyze"),
}
"""What a model can be, by its card's ``task``: a short name, a longer one, and the route that it answers."""


def of_kind(model: Loaded, task: str) -> Loaded:
    """The model, where it is of this kind; a :class:`Refusal` names the route that it answers."""
    if model.task == task:
        return model
    (name, wanted, _), (_, held, route) = KINDS[task], KINDS[model.task]
    raise Refusal(404, f"no_{name}", f"This service holds {held}, not {wanted}.", f"Use {route}.")


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

    def model(self, task: str | None = None) -> Loaded:
        """The model in use, read once a request; one of another ``task`` is refused."""
        model = self.holder.current
        if model is None:
            raise Refusal(503, "no_model", "No model is loaded.", "See /healthz; deploy a model version.")
        return model if task is None else of_kind(model, task)

    async def _apart(self, work: Callable[[*Given], T], *given: *Given) -> T:
        """One picture at a time, away from the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *given)

    async def detect(self, data: bytes, min_score: float | None, preview: bool) -> schemas.Detections:
        """Read a picture and search it, away from the event loop."""
        return await self._apart(self._detect, data, min_score, preview)

    def _detect(self, data: bytes, min_score: float | None, preview: bool) -> schemas.Detections:
        since, model = perf_counter(), self.model("boxes")
        picture = readers.read(data, "upload", self.settings.limit(), self.settings.max_pixels)
        grey = readers.to_grey8(picture.pixels)  # [H,W]
        found = self.holder.detect(model, grey)
        found = found.above(self.settings.min_score if min_score is None else min_score)
        self.metrics.found(len(found))
        return schemas.Detections(
            image=_facts(data, picture),
            detections=[
                schemas.Box(box=tuple(box), category=model.categories[category], score=score)
                for box, category, score in zip(
                    found.boxes.tolist(), found.categories.tolist(), found.scores.tolist(), strict=True
                )
            ],
            model_version=model.version,
            label_revision=model.label_revision,
            calibrated=model.calibrated,
            seconds=round(perf_counter() - since, 4),
            preview=uploads.preview(grey) if preview else None,
        )

    async def classify(self, data: bytes, preview: bool) -> schemas.Classification:
        """Read a picture and name its class, away from the event loop."""
        return await self._apart(self._classify, data, preview)

    def _classify(self, data: bytes, preview: bool) -> schemas.Classification:
        since, model = perf_counter(), self.model("classes")
        picture = readers.read(data, "upload", self.settings.limit(), self.settings.max_pixels)
        pixels = readers.read_rgb8(data, "upload") if model.colour else readers.to_grey8(picture.pixels)
        found = self.holder.classify(model, pixels)  # [K]
        best = int(np.argmax(found))
        return schemas.Classification(
            image=_facts(data, picture),
            category=model.categories[best],
            probability=float(found[best]),
            probabilities=dict(zip(model.categories, found.tolist(), strict=True)),
            model_version=model.version,
            label_revision=model.label_revision,
            calibrated=model.calibrated,
            seconds=round(perf_counter() - since, 4),
            preview=uploads.preview(pixels) if preview else None,
        )

    async def analyse(self, data: bytes, nm: float | None, overlay: bool) -> schemas.Analysis:
        """Find and judge the particles of a micrograph, away from the event loop."""
        return await self._apart(self._analyse, data, nm, overlay)

    def _analyse(self, data: bytes, nm: float | None, overlay: bool) -> schemas.Analysis:
        since, model = perf_counter(), self.model("analysis")
        picture = readers.read(data, "upload", self.settings.limit(), self.settings.max_analysed)
        found = self.holder.analyse(model, Whole(picture), nm)
        self.metrics.found(len(found.boxes))
        shown = micrographs.marked(picture, found, model) if overlay else None
        return micrographs.answer(_facts(data, picture), found, model, perf_counter() - since, shown)

    async def predict(self, request: schemas.PredictRequest) -> list[dict[str, Any]]:
        """Predictions for Label Studio's tasks, one after another."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._predict, request)

    def _predict(self, request: schemas.PredictRequest) -> list[dict[str, Any]]:
        model = self.model()
        if model.task == "classes":
            return self._predict_classes(model, request)
        of_kind(model, "boxes")
        names = names_of(request.label_config)
        workspace = Path(self.settings.workspace)
        pictures = [find_picture(workspace, task.data) for task in request.tasks]
        results = []
        for pixels in pictures:
            found = self.holder.detect(model, np.asarray(pixels)).above(self.settings.min_score)
            size = (pixels.shape[1], pixels.shape[0])
            results.append(prediction(found, size, model.categories, names, model.version))
        return results

    def _predict_classes(self, model: Loaded, request: schemas.PredictRequest) -> list[dict[str, Any]]:
        names, workspace = choice_names_of(request.label_config), Path(self.settings.workspace)
        pictures = [find_picture(workspace, task.data) for task in request.tasks]
        return [
            chosen(self.holder.classify(model, np.asarray(pixels)), model.categories, names, model.version)
            for pixels in pictures
        ]

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


def _facts(data: bytes, picture: readers.Picture) -> schemas.PictureFacts:
    """What was read of a picture."""
    height, width = picture.pixels.shape
    return schemas.PictureFacts(
        image_id=readers.image_id(data),
        width=width,
        height=height,
        bit_depth=picture.bit_depth,
        pixel_size_nm=picture.pixel_size_nm,
    )


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


def _add_detection(api: FastAPI, service: Service) -> None:
    @api.post("/v1/detect", responses=ERRORS, openapi_extra=UPLOAD, tags=["model"])
    async def detect(
        request: Request,
        min_score: Annotated[float | None, Query(ge=0, le=1)] = None,
        preview: bool = False,
    ) -> schemas.Detections:
        """Boxes of the objects in a PNG, JPEG or TIFF picture, as raw bytes or as a form's first file."""
        service.model("boxes")
        return await service.detect(await picture_bytes(request), min_score, preview)

    @api.post("/v1/classify", responses=ERRORS, openapi_extra=UPLOAD, tags=["model"])
    async def classify(request: Request, preview: bool = False) -> schemas.Classification:
        """The class of what a PNG, JPEG or TIFF picture shows, as raw bytes or as a form's first file."""
        service.model("classes")
        return await service.classify(await picture_bytes(request), preview)

    @api.post("/v1/analyze", responses=ERRORS, openapi_extra=UPLOAD, tags=["model"])
    async def analyze(
        request: Request,
        pixel_size_nm: Annotated[float | None, Query(gt=0)] = None,
        overlay: bool = False,
    ) -> schemas.Analysis:
        """The particles of a micrograph (PNG, JPEG or TIFF), their hands, and the left share of them."""
        service.model("analysis")
        return await service.analyse(await picture_bytes(request), pixel_size_nm, overlay)

    @api.get("/v1/model", responses=ERRORS, tags=["model"])
    async def model() -> schemas.ModelFacts:
        """Which model answers here."""
        held = service.model()
        figures = ("ap50", "accuracy", "cost_share", "metrics")
        metrics = {name: held.card[name] for name in figures if name in held.card}
        return schemas.ModelFacts(
            name=held.name,
            model_version=held.version,
            sha256=held.sha256,
            label_revision=held.label_revision,
            family=str(held.network.spec.family),
            categories=list(held.categories),
            metrics=metrics,
            task=held.task,
            calibrated=held.calibrated,
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
        """Boxes or classes for a labelling page; pictures are found by image id, no address is followed."""
        return schemas.PredictAnswer(results=await service.predict(request))
