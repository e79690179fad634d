"""Classes on Label Studio: a page with one choice for the whole picture, and both ways of its JSON.

Nothing is chosen beforehand: the label that a picture has so far stands above it in words (not in a blind
task), and the expert's own key makes the answer. People shown a ready answer leave most wrong ones in place
(docs/decisions/0012-classes-in-the-loop.md).
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from emclean.errors import LabelServiceError
from emclean.stores.label_studio.convert import Reading, task_data
from emclean.stores.label_studio.page import COMMENT, PICTURE
from emclean.types import Answer, AnsweredBox, TaskSpec

CLASSES = "class"
"""Name of the control that holds the class."""

_MOST_KEYS = 9
_NEEDED = "Choose the class of the picture, or skip it."


def configuration(categories: Sequence[str]) -> str:
    """The labelling page for these classes, as Label Studio's XML."""
    choices = "\n      ".join(
        f"<Choice value={quoteattr(name)}{_hotkey(place)}/>"
        for place, name in enumerate(_checked(categories))
    )
    return f"""<View>
  <Header value="$note" size="5"/>
  <View style="position: sticky; top: 0; z-index: 10; background: white">
    <Choices name="{CLASSES}" toName="{PICTURE}" choice="single" showInline="true" required="true"
      requiredMessage={quoteattr(_NEEDED)}>
      {choices}
    </Choices>
  </View>
  <Image name="{PICTURE}" value="$image" zoom="true" zoomControl="true" negativeZoom="true"
    maxWidth="calc(100% - 50px)"
    brightnessControl="true" contrastControl="true" rotateControl="false" smoothing="false"/>
  <TextArea name="{COMMENT}" toName="{PICTURE}" rows="2" maxSubmissions="1" editable="true"
    placeholder="Remark (optional): press Enter to keep it"/>
</View>"""


def _hotkey(place: int) -> str:
    return f' hotkey="{place + 1}"' if place < _MOST_KEYS else ""


def _checked(categories: Sequence[str]) -> tuple[str, ...]:
    """The classes, if a page can be made of them."""
    odd = {name for name in categories if list(categories).count(name) > 1 or not name.strip()}
    if len(categories) < 2 or odd:
        named = ", ".join(repr(name) for name in sorted(odd)) or f"{len(categories)} of them"
        what = f"no labelling page can be made of these classes: {named}"
        raise LabelServiceError(what, "categories", "Give two or more, each with a name of its own.")
    return tuple(categories)


def classes_of(label_config: str) -> tuple[str, ...]:
    """The classes of a labelling page that ``configuration`` made; none of any other page."""
    try:
        control = ElementTree.fromstring(label_config).find(f".//Choices[@name='{CLASSES}']")
    except ElementTree.ParseError:
        control = None
    return () if control is None else tuple(choice.get("value", "") for choice in control.findall("Choice"))


_HELP = """<p>{words}</p>
<ul>
<li><b>Say what the picture shows</b>: {categories}. Press the key (1-9) or click, then <b>Submit</b>.</li>
<li>The line above the picture names the label that it has so far. Many of these are wrong: look first.</li>
<li>Of some pictures the label is not told, to see what you say by yourself.</li>
<li>You cannot tell: <b>Skip</b>. A guess would count as your word.</li>
</ul>"""


def instructions(categories: Sequence[str], words: str = "") -> str:
    """Short instructions for the expert as HTML; ``words`` (plain text) come first."""
    names = ", ".join(f"{escape(name)} ({i})" for i, name in enumerate(categories, 1))
    return _HELP.format(
        words=escape(words.strip()) or "Say which class each picture shows.", categories=names
    )


def note(task: TaskSpec) -> str:
    """The line above the picture: its name, and its label so far, where that is told.

    A second look names those who have answered already: whoever opens it is to be somebody else.
    """
    if task.seen_by:
        others = ", ".join(task.seen_by)
        return f"{task.image.name}: second look, by somebody other than {others}: which class is it?"
    said = f"labelled {shown(task)!r} so far" if shown(task) else "which class is it?"
    return f"{task.image.name}: {said}"


def shown(task: TaskSpec) -> str:
    """The label that the expert is told; empty in a blind task."""
    return "" if task.blind or not task.suggestions else task.suggestions[0].category


def task_body(task: TaskSpec, url: str) -> dict[str, Any]:
    """What is sent to create a task whose picture the browser finds at ``url``."""
    data = task_data(task, url, note(task)) | {
        "label": shown(task),
        "label_id": task.suggestions[0].suggestion_id if shown(task) else "",
        "seen_by": list(task.seen_by),
    }
    return {"data": data, "predictions": []}


def prediction(task: TaskSpec) -> dict[str, Any] | None:
    """Nothing is chosen beforehand."""
    return None


def annotation_body(category: str) -> dict[str, Any]:
    """An answer as Label Studio's page would send it."""
    return {"result": [result(category)], "was_cancelled": False}


def result(category: str, control: str = CLASSES, picture: str = PICTURE) -> dict[str, Any]:
    """A choice as Label Studio keeps it."""
    return {
        "id": "class",
        "from_name": control,
        "to_name": picture,
        "type": "choices",
        "value": {"choices": [category]},
    }


def read(
    task: Mapping[str, Any], annotation: Mapping[str, Any], categories: Sequence[str], annotator: str
) -> Reading:
    """One annotation of a task as an answer: its class as a box round the whole picture.

    An answer without a class says nothing and counts as skipped. Raises KeyError, TypeError or ValueError on
    foreign JSON.
    """
    data = task["data"]
    skipped = bool(annotation.get("was_cancelled"))
    category, fault = ("", "") if skipped else _named(annotation.get("result") or [], categories)
    whole = (0.0, 0.0, float(data["width"]), float(data["height"]))
    lead = annotation.get("lead_time")
    answer = Answer(
        key=str(data["key"]),
        task_id=int(task["id"]),
        annotation_id=int(annotation["id"]),
        updated_at=str(annotation["updated_at"]),
        annotator=annotator,
        boxes=(AnsweredBox(whole, category, str(data.get("label_id") or "")),) if category else (),
        skipped=not category,
        lead_time_s=None if lead is None else float(lead),
    )
    return Reading(answer, (fault,) if fault else ())


def _named(items: Sequence[Mapping[str, Any]], categories: Sequence[str]) -> tuple[str, str]:
    """The class that a result names, and a fault in words (either may be empty)."""
    choices = [item for item in items if item.get("type") == "choices" and item.get("from_name") == CLASSES]
    names = [str(name) for item in choices for name in (item.get("value") or {}).get("choices") or []]
    known = [name for name in names if name in categories]
    if not known:
        return "", f"no known class is named ({', '.join(names) or 'none'}); it counts as skipped"
    if len(known) > 1:
        return known[0], f"several classes are named ({', '.join(known)}); the first was taken"
    return known[0], ""
