"""The labelling page: Label Studio's configuration in XML, the instructions, and the names both sides use.

A suggestion is drawn with a label of its own, ``deposit · shifted?``, coloured by grade. It becomes a
label only when the expert gives it a category (select it, press the category's key); the page refuses an
answer that still holds an undecided one. Sending an answer without looking is therefore never the
shortest way.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import product
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from emclean.errors import LabelServiceError
from emclean.types import GRADES, TaskSpec

BOXES = "label"
"""Name of the control that holds boxes."""

PICTURE = "picture"
"""Name of the object that is labelled."""

COMMENT = "comment"
"""Name of the expert's free text."""

_PALETTE = ("#1f9d55", "#2563eb", "#b45309", "#7c3aed", "#0e7490", "#be123c", "#4d7c0f", "#a21caf", "#475569")

GRADE_COLOURS = {
    "": "#9ca3af",
    "clean": "#86efac",
    "missed": "#f97316",
    "shifted": "#facc15",
    "merged": "#e879f9",
    "spurious": "#ef4444",
    "mislabelled": "#38bdf8",
    "duplicate": "#a78bfa",
}
"""The colour of a suggestion, by its grade."""

_PICTURE_WIDTH = "calc(100% - 50px)"
"""Room for the tool bar: without it, some pictures open magnified, their borders out of sight."""

_MARK = " · "
"""What sets a suggestion's grade apart from its category."""

_OUT_OF_REACH = "ctrl+alt+shift+f12"
"""A hotkey that nobody presses: without one, Label Studio would give single letters to hidden labels."""

_UNDECIDED = (
    "Some suggestions are undecided (the first is selected now). Press a category's key to accept it, "
    "after moving its sides if needed, or Backspace to delete it."
)


def suggestion_label(category: str, grade: str = "") -> str:
    """The label under which a suggestion of this category and grade is shown, always ending in ``?``."""
    return f"{category.replace(',', ';')}{_MARK}{grade or 'suggested'}?"


def suggestion_labels(categories: Sequence[str]) -> dict[str, str]:
    """Every label that a suggestion can have, with its colour."""
    pairs = product(categories, ("", *GRADES))
    return {suggestion_label(category, grade): GRADE_COLOURS[grade] for category, grade in pairs}


def categories_of(label_config: str) -> tuple[str, ...]:
    """The categories of a labelling page that ``configuration`` made."""
    try:
        control = ElementTree.fromstring(label_config).find(f".//RectangleLabels[@name='{BOXES}']")
    except ElementTree.ParseError:
        control = None
    return () if control is None else tuple(label.get("value", "") for label in control.findall("Label"))


def _checked(categories: Sequence[str]) -> tuple[str, ...]:
    """The categories, if a page can be made of them."""
    doubled = {name for name in categories if list(categories).count(name) > 1}
    reserved = {name for name in categories if is_suggestion(name) or not name.strip()}
    if not categories or doubled or reserved:
        named = ", ".join(repr(name) for name in sorted(doubled | reserved)) or "none"
        what = f"no labelling page can be made of these categories: {named}"
        fix = f"Give each a name of its own, none empty or like 'name{_MARK}word?'."
        raise LabelServiceError(what, "categories", fix)
    return tuple(categories)


def is_suggestion(label: str) -> bool:
    """Whether a label is one of a suggestion that is still to be decided."""
    return _MARK in label and label.endswith("?")


def _label(value: str, colour: str, hotkey: str) -> str:
    return f"<Label value={quoteattr(value)} background={quoteattr(colour)} hotkey={quoteattr(hotkey)}/>"


def _category_labels(categories: Sequence[str]) -> str:
    keys = [str(i) for i in range(1, 10)]
    hotkeys = keys[: len(categories)] + [_OUT_OF_REACH] * (len(categories) - len(keys))
    rows = enumerate(zip(categories, hotkeys, strict=True))
    return "\n      ".join(_label(name, _PALETTE[i % len(_PALETTE)], key) for i, (name, key) in rows)


def configuration(categories: Sequence[str]) -> str:
    """The labelling page for these categories, as Label Studio's XML."""
    suggested = suggestion_labels(_checked(categories))
    hidden = "\n        ".join(_label(name, colour, _OUT_OF_REACH) for name, colour in suggested.items())
    return f"""<View>
  <Header value="$note" size="5"/>
  <View style="position: sticky; top: 0; z-index: 10; background: white">
    <RectangleLabels name="{BOXES}" toName="{PICTURE}" canRotate="false" strokeWidth="2" opacity="0.15">
      {_category_labels(categories)}
      <View style="display: none">
        {hidden}
      </View>
    </RectangleLabels>
  </View>
  <Image name="{PICTURE}" value="$image" zoom="true" zoomControl="true" negativeZoom="true" showLabels="true"
    maxWidth="{_PICTURE_WIDTH}"
    brightnessControl="true" contrastControl="true" rotateControl="false" crosshair="true" smoothing="false"/>
  <View style="display: none">
    <Choices name="decision" toName="{PICTURE}" perRegion="true" required="true"
      whenLabelValue={quoteattr(",".join(suggested))} requiredMessage={quoteattr(_UNDECIDED)}>
      <Choice value="undecided" hotkey="{_OUT_OF_REACH}"/>
    </Choices>
  </View>
  <TextArea name="{COMMENT}" toName="{PICTURE}" rows="2" maxSubmissions="1" editable="true"
    placeholder="Remark (optional): press Enter to keep it"/>
</View>"""


_HELP = """<p>{words}</p>
<ul>
<li><b>Mark every object</b> of: {categories}. Press its key, then drag a box that just holds the object.</li>
<li><b>A box with “?” is a suggestion</b> and counts for nothing until you decide. Click it, then press the
category's key (1-9) to accept it; move or resize it first if it sits badly. Backspace deletes it.</li>
<li>Suggestions are what the program is unsure of, so many are wrong: look at the picture first, at the box
second. Its colour and word say what is doubtful; the reason is under <i>Info</i> when it is selected.</li>
<li>Some pictures come without suggestions. Mark them as you would any other.</li>
<li>No object in the picture: delete what is suggested and <b>Submit</b> without a box. You cannot tell:
<b>Skip</b>.</li>
</ul>"""


def instructions(categories: Sequence[str], words: str = "") -> str:
    """Short instructions for the expert as HTML; ``words`` (plain text) come first."""
    names = ", ".join(f"{escape(name)} ({i})" for i, name in enumerate(categories, 1))
    first = escape(words.strip()) or "Draw a box around every object."
    return _HELP.format(words=re.sub(r"\s*\n\s*", "<br>", first), categories=names)


VIEW = "Most valuable first"
"""The title of the project's list of tasks."""

_LISTED = ("id", "total_annotations", "cancelled_annotations")
"""What the list shows of a task, besides picture, name and note."""

_INTERNAL = ("key", "value", "image_id", "width", "height", "kind", "blind", "label", "label_id")
"""What a task carries for programs."""


def view_of(columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The list of tasks for people, of the ``columns`` that Label Studio knows: most columns are hidden.

    The task's own data need not be among them: a project without tasks does not know them yet.
    """
    own = [str(c["id"]) for c in columns if c.get("target") == "tasks" and not c.get("parent")]
    hidden = [name for name in own if name not in (*_LISTED, "data")]
    hidden += [f"data.{name}" for name in _INTERNAL]
    everywhere = [f"tasks:{name}" for name in hidden]
    beside_a_picture = [*everywhere, *(f"tasks:{name}" for name in (*_LISTED, "data.image"))]
    return {
        "title": VIEW,
        "type": "list",
        "ordering": ["-tasks:data.value"],
        "hiddenColumns": {"explore": everywhere, "labeling": beside_a_picture},
        "columnsWidth": {"tasks:data.name": 220, "tasks:data.note": 480},
    }


def note(task: TaskSpec) -> str:
    """The line above the picture: its name, its scale, and what is suggested."""
    size = f"{task.image.width} × {task.image.height} px"
    scale = f", {task.image.pixel_size_nm:.3g} nm/px" if task.image.pixel_size_nm else ""
    n = 0 if task.blind else len(task.suggestions)
    asked = f"{n} suggestion{'s' * (n != 1)} to decide" if n else "no suggestions, please mark every object"
    if task.kind == "review":
        asked = f"REVIEW: decide the {n} suggestion{'s' * (n != 1)} only, other objects need no box"
    return f"{task.image.name} ({size}{scale}): {asked}"
