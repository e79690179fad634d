"""Colours and empty figures of the plots: readable for the colour-blind, on light and dark pages."""

import io
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ThemeName = Literal["light", "dark"]


@dataclass(frozen=True)
class Theme:
    """The colours of one page theme."""

    ground: str
    text: str
    soft: str
    grid: str
    series: tuple[str, ...]


_LIGHT_SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#b8a900")
_DARK_SERIES = ("#4aa8e0", "#e69f00", "#27b48b", "#d795ba", "#9ad2f5", "#ee8338", "#9c9c9c", "#d6c626")
"""Okabe and Ito's colours (jfly.uni-koeln.de/color) with grey for black; lighter ones for dark pages."""

THEMES: dict[ThemeName, Theme] = {
    "light": Theme(ground="#ffffff", text="#1c2430", soft="#5b6675", grid="#e3e7ec", series=_LIGHT_SERIES),
    "dark": Theme(ground="#171c23", text="#e6eaf0", soft="#9aa6b5", grid="#2c3440", series=_DARK_SERIES),
}

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

GRADE_COLOURS = {
    "clean": "#8c8c8c",
    "missed": "#e69f00",
    "shifted": "#56b4e9",
    "merged": "#cc79a7",
    "spurious": "#d55e00",
    "mislabelled": "#0072b2",
    "duplicate": "#009e73",
}


def figure(theme: ThemeName, width: float = 6.4, height: float = 3.8) -> tuple[Figure, Any, Theme]:
    """An empty figure (inches), its axes without frame, and the colours; touches no global state."""
    colours = THEMES[theme]
    drawing = Figure(figsize=(width, height), facecolor=colours.ground, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    axes.set_facecolor(colours.ground)
    axes.tick_params(colors=colours.soft, length=0, labelsize=9)
    axes.xaxis.label.set_color(colours.soft)
    axes.yaxis.label.set_color(colours.soft)
    axes.grid(color=colours.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(colours.grid)
    return drawing, axes, colours


def legend(axes: Any, colours: Theme, **place: Any) -> None:
    """A legend without frame, only where something has a name."""
    handles, names = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, names, frameon=False, labelcolor=colours.text, fontsize=9, **place)


def empty(axes: Any, colours: Theme, text: str = "nothing to show yet") -> None:
    """Say in words that there is nothing to draw."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=colours.soft, transform=axes.transAxes)


def png(drawing: Figure, dpi: int = 144) -> bytes:
    """The figure as PNG, without a time stamp: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
