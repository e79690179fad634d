from xml.etree import ElementTree

import pytest

from emclean.errors import LabelServiceError
from emclean.stores.label_studio.convert import task_body
from emclean.stores.label_studio.page import (
    GRADE_COLOURS,
    categories_of,
    configuration,
    instructions,
    is_suggestion,
    note,
    suggestion_label,
    suggestion_labels,
    view_of,
)
from emclean.stores.label_studio.service import project_title
from emclean.types import GRADES, ImageRecord, Suggestion, TaskSpec

ODD = ("a, b", '<"quoted" & more>', "Größe 5 µm", "what?")


@pytest.mark.parametrize("categories", [("deposit",), ("RBC", "WBC", "Platelets"), ODD])
def test_page_is_valid_and_names_its_categories(categories):
    from label_studio_sdk.label_interface import LabelInterface

    page = configuration(categories)
    LabelInterface(page).validate()
    assert categories_of(page) == categories


def test_one_key_per_category_and_one_colour_per_grade():
    page = ElementTree.fromstring(configuration(("deposit", "vesicle")))
    control = page.find(".//RectangleLabels")
    assert [label.get("hotkey") for label in control.findall("Label")] == ["1", "2"]
    colours = suggestion_labels(("deposit",))
    assert set(GRADE_COLOURS) == {"", *GRADES}
    assert len(set(colours.values())) == len(colours) == len(GRADES) + 1


def test_more_categories_than_keys():
    names = tuple(f"c{i}" for i in range(12))
    assert categories_of(configuration(names)) == names


def test_undecided_suggestions_stop_an_answer():
    gate = ElementTree.fromstring(configuration(ODD)).find(".//Choices")
    assert (gate.get("perRegion"), gate.get("required")) == ("true", "true")
    named = gate.get("whenLabelValue").split(",")
    assert set(named) == set(suggestion_labels(ODD))


def test_suggestions_are_hidden_from_the_palette():
    page = ElementTree.fromstring(configuration(("deposit",)))
    hidden = page.find(".//RectangleLabels/View")
    assert "none" in hidden.get("style")
    assert {label.get("value") for label in hidden} == set(suggestion_labels(("deposit",)))


def test_suggestion_labels_are_told_from_categories():
    assert is_suggestion(suggestion_label("deposit", "missed"))
    assert is_suggestion(suggestion_label("deposit"))
    assert not any(is_suggestion(name) for name in ODD)


@pytest.mark.parametrize("categories", [(), ("a", "a"), ("a", " "), ("a", "a · clean?")])
def test_impossible_categories_are_refused(categories):
    with pytest.raises(LabelServiceError, match="categories"):
        configuration(categories)


def test_instructions_say_what_a_suggestion_is_worth():
    text = " ".join(instructions(("deposit",)).split())
    assert "Suggestions are what the program is unsure of, so many are wrong" in text
    assert "on purpose" not in text


def test_instructions_are_escaped_and_name_the_categories():
    text = instructions(("deposit", "<i>"), "Mark all.\nEven <small> ones.")
    assert "Mark all.<br>Even &lt;small&gt; ones." in text
    assert "deposit (1), &lt;i&gt; (2)" in text
    assert "Draw a box around every object." in instructions(("deposit",))


def test_the_list_of_tasks_shows_name_and_note_and_hides_what_is_for_programs():
    names = ("id", "inner_id", "total_annotations", "cancelled_annotations", "avg_lead_time")
    columns = [{"id": name, "target": "tasks", "parent": None} for name in names]
    columns += [{"id": "data", "target": "tasks", "children": ["name"]}]
    columns += [
        {"id": name, "target": "tasks", "parent": "data"} for name in ("name", "note", "image", "key")
    ]
    hidden = view_of(columns)["hiddenColumns"]
    assert set(hidden["explore"]) >= {"tasks:inner_id", "tasks:avg_lead_time", "tasks:data.key"}
    shown = {"tasks:data", "tasks:data.name", "tasks:data.note", "tasks:data.image", "tasks:id"}
    assert not shown & set(hidden["explore"])
    assert not {"tasks:data.name", "tasks:data.note"} & set(hidden["labeling"])
    task = TaskSpec("k", ImageRecord("00", "/a.tif", "a.tif", 640, 480), ())
    told = {f"tasks:data.{name}" for name in task_body(task, "/a")["data"]}
    assert told - set(hidden["explore"]) == {"tasks:data.name", "tasks:data.note", "tasks:data.image"}


def test_note_tells_name_scale_and_what_is_asked():
    image = ImageRecord("00", "/a.tif", "a.tif", 640, 480, pixel_size_nm=0.4567)
    one = Suggestion("s", (0, 0, 5, 5), "deposit", 0.5)
    assert note(TaskSpec("k", image, (one,))) == "a.tif (640 × 480 px, 0.457 nm/px): 1 suggestion to decide"
    assert note(TaskSpec("k", image, (one, one))).endswith("2 suggestions to decide")
    assert note(TaskSpec("k", image, (one,), blind=True)).endswith("no suggestions, please mark every object")


def test_titles_fit_label_studio_and_stay_apart():
    assert project_title("emclean demo") == "emclean demo"
    long = ["emclean " + "x" * 60 + end for end in "ab"]
    assert {len(project_title(name)) for name in long} == {50}
    assert project_title(long[0]) != project_title(long[1])
    assert len(project_title("a")) == 3


def test_unreadable_page_has_no_categories():
    assert categories_of("<View>") == ()
    assert categories_of("<View/>") == ()
