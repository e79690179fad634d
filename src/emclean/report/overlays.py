"""Pictures with boxes on them: what the crowd drew, the model found, the expert or a correction says.

Colour and line both tell the three apart, so that the picture also reads in grey and for the colour-blind.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from emclean.boxes import centre, enclosing
from emclean.report.theme import png
from emclean.report.words import POINTS, Word, placed
from emclean.types import Floats, Labels, Predictions, Verdicts

Who = Literal["crowd", "model", "expert", "corrected"]


@dataclass(frozen=True)
class Pen:
    """How one party's boxes are drawn: colour, line width in points, dash pattern."""

    colour: str
    width: float
    dash: Any = "-"


PENS: dict[Who, Pen] = {
    "crowd": Pen("#e69f00", 1.5),
    "model": Pen("#56b4e9", 1.3, (0, (4, 2))),
    "expert": Pen("#2fd39b", 2.4),
    "corrected": Pen("#2fd39b", 2.4),
}

_DPI = 100
_HALO = withStroke(linewidth=2.2, foreground="#000000b0")


@dataclass(frozen=True, eq=False)
class Change:
    """One automatic correction from ``before [4]`` to ``after [4]``; None where one was added or deleted."""

    before: Floats | None
    after: Floats | None
    grade: str = ""


@dataclass(frozen=True, eq=False)
class Layers:
    """What is drawn over a picture; each part may be left out.

    ``verdicts`` write their grades beside the boxes of ``crowd``; ``changes`` draw each correction from the
    old box (dashed) to the new one with an arrow, and cross out what was deleted.
    """

    crowd: Labels | None = None
    model: Predictions | None = None
    expert: Labels | None = None
    verdicts: Verdicts | None = None
    changes: Sequence[Change] = ()

    def boxes(self) -> Floats:
        """All boxes of all parts ``[N,4]``: where there is something to see."""
        parts = [part.boxes for part in (self.crowd, self.model, self.expert) if part is not None]
        ends = [end for change in self.changes for end in (change.before, change.after) if end is not None]
        return np.concatenate([*parts, np.reshape(ends, (-1, 4))])


def overlay(pixels: NDArray[np.uint8], layers: Layers, size: int = 720, crop: Floats | None = None) -> bytes:
    """Draw ``layers`` over ``pixels [H,W]`` and return PNG bytes whose longer side is about ``size``.

    ``crop`` ``x1, y1, x2, y2`` cuts a part out; without it, a picture of more than twice ``size`` is cut to
    where most of the boxes are, because they would be too small to see.
    """
    if pixels.ndim != 2:
        raise ValueError(f"pixels: expected [height, width] of one grey channel, got shape {pixels.shape}")
    x1, y1, x2, y2 = view(pixels.shape, layers.boxes(), size) if crop is None else np.rint(crop).astype(int)
    part = pixels[max(y1, 0) : y2, max(x1, 0) : x2]
    drawing, axes = _canvas(part, (max(x1, 0), max(y1, 0)), size)
    shown = _draw_layers(axes, layers)
    _write(axes, drawing, _words(layers))
    _legend(drawing, shown)
    return _small(png(drawing, _DPI))


def _small(picture: bytes) -> bytes:
    """The same picture with at most 128 colours: half the bytes, and no difference that one would see."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def view(shape: tuple[int, ...], boxes: Floats, size: int) -> tuple[int, int, int, int]:
    """The part of a picture ``[H,W]`` to show: all of it, or the window that holds most box centres."""
    height, width = shape[0], shape[1]
    if max(height, width) <= 2 * size:
        return 0, 0, width, height
    w, h = min(width, size), min(height, size)
    if not len(boxes):
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h
    middles = centre(boxes)  # [N,2]
    apart = np.abs(middles[:, None] - middles[None])  # [N,N,2]
    near = np.asarray((apart <= np.array([w, h]) / 2).all(axis=2))  # [N,N]
    group = boxes[near[int(near.sum(axis=1).argmax())]]
    around = enclosing(group)
    x = int(np.clip((around[0] + around[2]) / 2 - w / 2, 0, width - w))
    y = int(np.clip((around[1] + around[3]) / 2 - h / 2, 0, height - h))
    return x, y, x + w, y + h


def _canvas(part: NDArray[np.uint8], corner: tuple[int, int], size: int) -> tuple[Figure, Any]:
    height, width = part.shape
    scale = size / max(height, width)
    inches = (width * scale / _DPI, height * scale / _DPI)
    bar = 0.32  # inches for the legend under the picture
    drawing = Figure(figsize=(inches[0], inches[1] + bar), facecolor="#101418", dpi=_DPI)
    FigureCanvasAgg(drawing)
    share = bar / (inches[1] + bar)
    axes = drawing.add_axes((0.0, share, 1.0, 1.0 - share))
    x, y = corner
    smooth = "antialiased" if scale < 1 else "bilinear"
    axes.imshow(
        part, cmap="gray", vmin=0, vmax=255, interpolation=smooth, extent=(x, x + width, y + height, y)
    )
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    return drawing, axes


def _draw_layers(axes: Any, layers: Layers) -> list[Who]:
    shown: list[Who] = []
    parties: tuple[tuple[Who, Labels | Predictions | None], ...] = (
        ("expert", layers.expert),  # the thickest line first, so that it hides none of the others
        ("crowd", layers.crowd),
        ("model", layers.model),
    )
    for who, part in parties:
        if part is None:
            continue
        shown.append(who)
        for box in part.boxes:
            _box(axes, box, PENS[who])
    for change in layers.changes:
        _change(axes, change)
    if layers.changes:
        shown.append("corrected")
    return [who for who in PENS if who in shown]


def _words(layers: Layers) -> list[Word]:
    """What is written beside the boxes: first what was changed, then what is only doubted."""
    words = [word for change in layers.changes for word in _word_of(change)]
    if layers.verdicts is None or layers.crowd is None:
        return words
    names, verdicts = layers.verdicts.names(), layers.verdicts
    rows = zip(verdicts.label, names, verdicts.probability, strict=True)
    said = {int(label): f"{name} {p:.2f}" for label, name, p in rows if label >= 0 and name != "clean"}
    return words + [Word(layers.crowd.boxes[k], said[k], PENS["crowd"].colour) for k in sorted(said)]


def _box(axes: Any, box: Floats, pen: Pen, dash: Any = None) -> None:
    x1, y1, x2, y2 = box
    line = pen.dash if dash is None else dash
    halo = withStroke(linewidth=pen.width + 1.6, foreground="#00000090")
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=pen.colour, linewidth=pen.width,
                  linestyle=line, path_effects=[halo])
    )  # fmt: skip


def _write(axes: Any, drawing: Figure, words: Sequence[Word]) -> None:
    """The words, where they find room."""
    low_x, high_x = axes.get_xlim()
    high_y, low_y = axes.get_ylim()
    unit = (high_x - low_x) / (axes.get_position().width * drawing.get_figwidth() * 72)
    for word, x, y in placed(words, (low_x, low_y, high_x, high_y), unit):
        axes.text(
            x, y, word.text, ha="left", va="top", fontsize=POINTS, color=word.colour, path_effects=[_HALO]
        )  # fmt: skip


def _change(axes: Any, change: Change) -> None:
    pen, old = PENS["corrected"], PENS["crowd"]
    if change.before is not None:
        _box(axes, change.before, old, dash=(0, (3, 2)))
    if change.after is not None:
        _box(axes, change.after, pen)
    if change.after is None and change.before is not None:
        _cross(axes, change.before, old)
    if change.before is not None and change.after is not None:
        _arrow(axes, change.before, change.after, pen)


def _word_of(change: Change) -> list[Word]:
    """The grade of a change, for where it leads; for what was deleted, where it was."""
    place = change.after if change.after is not None else change.before
    who: Who = "crowd" if change.after is None else "corrected"
    return [Word(place, change.grade, PENS[who].colour)] if place is not None and change.grade else []


def _cross(axes: Any, box: Floats, pen: Pen) -> None:
    x1, y1, x2, y2 = box
    for ends in ((y1, y2), (y2, y1)):
        axes.plot((x1, x2), ends, color=pen.colour, linewidth=pen.width, path_effects=[_HALO])


def _arrow(axes: Any, before: Floats, after: Floats, pen: Pen) -> None:
    """From the old to the new place of the corner that moved most."""
    corners = ((0, 1), (2, 1), (2, 3), (0, 3))
    far = max(corners, key=lambda c: float(np.hypot(*(after[list(c)] - before[list(c)]))))
    axes.annotate(
        "",
        xy=tuple(after[list(far)]),
        xytext=tuple(before[list(far)]),
        arrowprops={"arrowstyle": "-|>", "color": pen.colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0},
    )


def _legend(drawing: Figure, shown: Sequence[Who]) -> None:
    handles = []
    for who in shown:
        pen = PENS[who]
        name = "fix (before: dashed, deleted: crossed)" if who == "corrected" else who
        handles.append(Line2D([], [], color=pen.colour, linewidth=pen.width, linestyle=pen.dash, label=name))
    if not handles:
        return
    drawn = _legend_in(drawing, handles, 9.0)
    wide = drawn.get_window_extent().width / drawing.bbox.width
    if wide > 1:  # letters so small that it ends before the picture does
        drawn.remove()
        _legend_in(drawing, handles, 9.0 * 0.97 / wide)


def _legend_in(drawing: Figure, handles: Sequence[Line2D], size: float) -> Any:
    return drawing.legend(
        handles=list(handles), loc="lower left", ncols=len(handles), frameon=False, labelcolor="#e6eaf0",
        fontsize=size, borderaxespad=0.2, handlelength=2.4,
    )  # fmt: skip
