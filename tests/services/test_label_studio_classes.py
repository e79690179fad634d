"""Class labels on a real Label Studio: exactly once, told or not, answered by a program and in a browser."""

from dataclasses import replace

import pytest
from conftest import render
from flaky_proxy import FlakyProxy

from emclean.science.classes import expert
from emclean.simulated_expert import main
from emclean.stores.label_studio import LabelStudioClient, LabelStudioService, LocalPictures, choices
from emclean.stores.label_studio.forms import CLASSES
from emclean.stores.label_studio.people import accounts
from emclean.stores.label_studio.service import project_title
from emclean.types import ImageRecord, Suggestion, TaskSpec

pytestmark = pytest.mark.services

NAMES = ("left", "right")


def asked(run, n=4):
    """Questions of which every second does not tell the label so far."""
    tasks = []
    for i in range(n):
        image = ImageRecord(f"{i:016x}", "/nowhere", f"{i}.png", 64, 48)
        shown = () if i % 2 else (Suggestion("class", (0.0, 0.0, 64.0, 48.0), "left", 0.5),)
        tasks.append(TaskSpec(f"{run}/{i:016x}/0", image, shown, blind=bool(i % 2), value=float(-i)))
    return tasks


def made(label_studio, title, url=""):
    pictures = LocalPictures(label_studio.server.document_root, "classes", render)
    service = LabelStudioService(url or label_studio.url, label_studio.server.token(), pictures, form=CLASSES)
    return service, service.ensure_project(title, NAMES, "Say which hand it is.")


def tasks_of(client, title):
    (project,) = client.get("/api/projects", title=project_title(title))["results"]
    return list(client.tasks(int(project["id"]), [], ("id", "data", "predictions")))


def test_a_lost_call_makes_no_task_twice_and_answers_come_back(label_studio):
    proxy, title = FlakyProxy(label_studio.url), "emclean classes once"
    service, _ = made(label_studio, title, proxy.url)
    tasks = asked("once")
    proxy.faults.append(("/import", "lose"))
    numbers = service.push(tasks)
    assert service.push(tasks) == numbers
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
        there = tasks_of(client, title)
        assert sorted(t["data"]["key"] for t in there) == sorted(t.key for t in tasks)
        assert all(t["predictions"] == [] for t in there)
        assert ["label" in str(t["data"]["note"]) for t in there] == [True, False, True, False]
        first, second, third = (numbers[t.key] for t in tasks[:3])
        client.post(f"/api/tasks/{first}/annotations/", choices.annotation_body("right"))
        client.post(f"/api/tasks/{second}/annotations/", {"result": [], "was_cancelled": True})
        client.post(f"/api/tasks/{third}/annotations/", {"result": [], "was_cancelled": False})
    pulled = service.pull([t.key for t in tasks])
    service.close()
    proxy.close()
    said = {
        a.key: (a.skipped, [(b.box, b.category, b.suggestion_id) for b in a.boxes]) for a in pulled.answers
    }
    assert said[tasks[0].key] == (False, [((0.0, 0.0, 64.0, 48.0), "right", "class")])
    assert said[tasks[1].key] == said[tasks[2].key] == (True, [])
    assert pulled.open == (tasks[3].key,)


def test_the_simulated_expert_names_classes(label_studio, tmp_path):
    title = "emclean classes expert"
    service, _ = made(label_studio, title)
    tasks = asked("expert")
    service.push(tasks)
    rows = [f"{i}.png,{NAMES[i % 2]}" for i in range(4)]
    (tmp_path / "truth.csv").write_text("\n".join(["image,hand", *rows]))
    line = ["--url", label_studio.url, "--token-file", str(label_studio.credentials), "--project", title]
    line += ["--truth", str(tmp_path / "truth.csv"), "--classes", "hand"]
    assert main(line) == 0
    assert main(line) == 0  # nothing is left to answer
    pulled = service.pull([t.key for t in tasks])
    service.close()
    assert pulled.open == ()
    assert {a.key: a.boxes[0].category for a in pulled.answers} == {
        t.key: NAMES[i % 2] for i, t in enumerate(tasks)
    }
    assert {a.lead_time_s for a in pulled.answers} == {7.0}


def test_two_users_answers_to_one_task_are_kept_apart(label_studio):
    service, _ = made(label_studio, "emclean classes two users")
    (task,) = asked("two", 1)
    number = service.push([task])[task.key]
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
        people = accounts(client, ["anna@lab.example", "ben@lab.example"])
        assert accounts(client, ["ben@lab.example", "anna@lab.example"]) == people
        for address, name in (("anna@lab.example", "left"), ("ben@lab.example", "right")):
            body = choices.annotation_body(name) | {"completed_by": people[address]}
            client.post(f"/api/tasks/{number}/annotations/", body)
    pulled = service.pull([task.key])
    service.close()
    assert {a.annotator: a.boxes[0].category for a in pulled.answers} == {
        "anna@lab.example": "left",
        "ben@lab.example": "right",
    }
    assert len({a.annotation_id for a in pulled.answers}) == 2


def test_several_simulated_experts_answer_under_their_own_accounts(label_studio, tmp_path):
    title = "emclean classes several"
    service, _ = made(label_studio, title)
    first = asked("several")
    names = expert.names(2)
    again = [replace(t, key=f"{t.key[:-1]}1", suggestions=(), seen_by=names[:1]) for t in first]
    service.push([*first, *again])
    rows = [f"{i}.png,{NAMES[i % 2]}" for i in range(4)]
    (tmp_path / "truth.csv").write_text("\n".join(["image,hand", *rows]))
    line = ["--url", label_studio.url, "--token-file", str(label_studio.credentials), "--project", title]
    line += ["--truth", str(tmp_path / "truth.csv"), "--classes", "hand", "--misses", "0,1"]
    assert main(line) == 0
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
        notes = {t["data"]["key"]: t["data"]["note"] for t in tasks_of(client, title)}
    pulled = service.pull([t.key for t in (*first, *again)])
    service.close()
    right = {t.key: NAMES[i % 2] for i, t in enumerate(first)} | {
        t.key: NAMES[i % 2] for i, t in enumerate(again)
    }
    assert pulled.open == ()
    for answer in pulled.answers:
        assert (answer.boxes[0].category == right[answer.key]) == (answer.annotator == names[0])
    assert {a.annotator for a in pulled.answers if a.key.endswith("/1")} == {names[1]}
    assert all("other than expert-1@simulated.invalid" in notes[t.key] for t in again)


SUBMIT = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Submit')"
CONTROL = "[...Htx.annotationStore.selected.names.values()].find(tag => tag.type == 'choices')"
OKS = "[...document.querySelectorAll('button')].filter(b => b.innerText.trim() == 'OK')"
CHOSEN = f"{CONTROL}.selectedLabels.length"


def test_the_page_in_a_browser(label_studio, tmp_path):
    from chromium import Browser, sign_in

    service, address = made(label_studio, "emclean classes in a browser")
    (task, *_) = asked("browser", 1)
    number = service.push([task])[task.key]
    browser = Browser(tmp_path / "profile")
    try:
        sign_in(browser, label_studio.url, label_studio.credentials)
        browser.open(f"{address}?task={number}")
        browser.wait("[...document.querySelectorAll('img')].some(i => i.naturalWidth == 64)")
        browser.wait("document.body.innerText.includes(\"labelled 'left' so far\")")
        browser.wait(f"{CHOSEN} == 0 && {SUBMIT} != undefined")
        said = "document.body.innerText.includes('Choose the class of the picture')"
        browser.wait(f"{said} || ({SUBMIT}.click(), false)")  # the page may not listen at once
        browser.wait(f"!{OKS}.length || ({OKS}.forEach(b => b.click()), false)")
        browser.press("2")
        browser.wait(f"{CHOSEN} == 1")
        browser.run(f"{SUBMIT}.click()")
        browser.wait("[...document.querySelectorAll('button')].some(b => b.innerText.trim() == 'Update')")
    finally:
        browser.close()
    (answer,) = service.pull([task.key]).answers
    service.close()
    assert [(b.category, b.suggestion_id) for b in answer.boxes] == [("right", "class")]
