"""Label Studio as it is: the real server, the real page in a real browser, and calls that get lost."""

import json
import socket
import stat
import sys
import threading
import uuid
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import png, question, render
from flaky_proxy import FlakyProxy

from emclean.boxes import area, centre
from emclean.errors import LabelServiceError
from emclean.stores.label_studio import LabelStudioClient, LabelStudioService, LocalPictures, server
from emclean.stores.label_studio.convert import annotation_body
from emclean.stores.label_studio.service import project_title
from emclean.types import AnsweredBox, ImageRecord, Suggestion, TaskSpec

pytestmark = pytest.mark.services

BOX = AnsweredBox((20.0, 30.0, 80.0, 90.0), "deposit", "s#1")


@pytest.fixture
def service(label_studio, request):
    made = label_studio.service(f"emclean {request.node.name}")
    yield made
    made.close()


@pytest.fixture
def client(label_studio):
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as made:
        yield made


@pytest.fixture
def proxy(label_studio):
    made = FlakyProxy(label_studio.url)
    yield made
    made.close()


def project_id(address):
    return int(address.split("/projects/")[1].split("/")[0])


def tasks_of(client, title):
    listed = client.get("/api/projects", title=project_title(title))["results"]
    assert [p["title"] for p in listed] == [project_title(title)]
    return list(client.tasks(int(listed[0]["id"]), [], ("id", "data", "predictions")))


def post_answer(client, task_id, *boxes, **more):
    body = {**annotation_body(boxes, 320, 240), **more}
    return client.post(f"/api/tasks/{task_id}/annotations/", body)["id"]


def keys(run, n):
    return [f"{run}/{i:016x}/1" for i in range(n)]


def test_account_is_private_and_the_token_is_nowhere_else(label_studio):
    assert stat.S_IMODE(label_studio.credentials.stat().st_mode) == 0o600
    account = json.loads(label_studio.credentials.read_text())
    log = label_studio.server.log.read_text()
    command = Path(f"/proc/{label_studio.server.pid}/cmdline").read_bytes().decode()
    for secret in (account["token"], account["password"]):
        assert len(secret) > 12
        assert secret not in log + command + repr(label_studio.server)


def test_a_running_server_is_found_again(label_studio):
    again = server.start(label_studio.credentials.parent)
    assert (again.pid, again.url) == (label_studio.server.pid, label_studio.url)


def test_busy_port_is_told(label_studio, tmp_path):
    port = int(label_studio.url.rsplit(":", 1)[1])
    with pytest.raises(LabelServiceError, match=f"127.0.0.1:{port}: the port cannot be used"):
        server.start(tmp_path, port=port, executable=server.find_executable())


def test_server_that_ends_at_once_is_told(tmp_path):
    broken = tmp_path / "label-studio"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('out of luck')\n")
    broken.chmod(0o755)
    with pytest.raises(LabelServiceError, match=r"did not start.*out of luck"):
        server.start(tmp_path / "home", executable=broken)


def test_project_is_made_once(label_studio, service, client, request):
    title = f"emclean {request.node.name}"
    address = service.ensure_project(title, ["deposit"], "Mark every deposit.")
    again = label_studio.service(title)
    assert again.ensure_project(title, ["deposit"], "Mark every deposit.") == address
    project = client.get(f"/api/projects/{project_id(address)}/")
    assert "Mark every deposit." in project["expert_instruction"]
    assert project["show_instruction"]
    assert len(client.get("/api/storages/localfiles", project=project["id"])) == 1
    views = client.get("/api/dm/views", project=project["id"])
    assert [view["data"]["ordering"] for view in views] == [["-tasks:data.value"]]
    hidden = views[0]["data"]["hiddenColumns"]["explore"]
    assert {"tasks:inner_id", "tasks:data.key"} <= set(hidden)
    assert not {"tasks:data.name", "tasks:data.note"} & set(hidden)
    again.close()


def test_a_project_that_is_not_here_is_not_made_anew(service, client, request):
    title = f"emclean {request.node.name}"
    address = service.ensure_project(title, ["deposit"], "")
    moved = address.replace("127.0.0.1", "another.host")
    assert service.ensure_project(title, ["deposit"], "", known=moved) == address
    elsewhere = "http://another.host:8080/projects/99999/data"
    before = client.get("/api/projects", page_size=1000)["count"]
    for name in (title, f"{title} B"):  # the same title with another number, and no such title
        with pytest.raises(LabelServiceError, match=r"were pushed to http://another\.host:8080"):
            service.ensure_project(name, ["deposit"], "", known=elsewhere)
    assert client.get("/api/projects", page_size=1000)["count"] == before


def test_project_follows_new_categories(service, client, request):
    title = f"emclean {request.node.name}"
    address = service.ensure_project(title, ["deposit", "vesicle"], "Both.")
    page = client.get(f"/api/projects/{project_id(address)}/")["label_config"]
    assert 'value="vesicle"' in page


def test_tasks_are_made_once_and_the_most_valuable_comes_first(service, client, request):
    asked = [question(key, value=i) for i, key in enumerate(keys("run", 5))]
    first = service.push(asked)
    assert service.push(asked) == first
    assert service.push([*asked[:2], question("run/00ff/1", value=9)])["run/00ff/1"] > max(first.values())
    found = tasks_of(client, f"emclean {request.node.name}")
    assert [task["data"]["value"] for task in found] == [4, 3, 2, 1, 0, 9]


def test_more_tasks_than_one_call_takes(service):
    asked = [question(key) for key in keys("many", 130)]
    assert len(set(service.push(asked).values())) == 130
    pulled = service.pull([task.key for task in asked])
    assert pulled.open == tuple(task.key for task in asked)


def test_a_key_given_twice_is_refused(service):
    with pytest.raises(LabelServiceError, match="more than once"):
        service.push([question("a/b/1"), question("a/b/1")])


def test_a_suggestion_of_no_known_category_is_refused(service):
    image = question("a/b/1").image
    wrong = TaskSpec("a/b/1", image, (Suggestion("s", (1, 1, 9, 9), "moon", 0.5),))
    with pytest.raises(LabelServiceError, match="task a/b/1: the suggestions cannot be shown"):
        service.push([wrong])


def test_suggestions_reach_the_server_and_blind_tasks_have_none(service, client, request):
    service.push([question("a/00/1", value=1), question("a/01/1", blind=True)])
    shown, blind = tasks_of(client, f"emclean {request.node.name}")
    regions = shown["predictions"][0]["result"]
    assert [r["value"]["rectanglelabels"] for r in regions] == [["deposit · clean?"], ["deposit · missed?"]]
    assert [r["score"] for r in regions] == [0.75, 0.75]
    assert blind["predictions"] == []


@pytest.mark.parametrize("fault", ["lose", "refuse", "late", "fail"])
def test_a_lost_push_makes_no_task_twice(label_studio, client, proxy, fault):
    title = f"emclean lost {fault}"
    service = label_studio.service(title, proxy.url, timeout=1.0 if fault == "late" else 60.0)
    proxy.faults.append(("POST /api/projects", fault))
    asked = [question(key, value=-i) for i, key in enumerate(keys(fault, 3))]
    made = service.push(asked)
    assert not proxy.faults
    found = tasks_of(client, title)
    assert {task["data"]["key"]: task["id"] for task in found} == made
    assert len(found) == 3
    service.close()


def test_a_job_killed_after_sending_finds_its_tasks(label_studio, client, proxy):
    title = "emclean killed"
    asked = [question(key) for key in keys("killed", 3)]
    service = label_studio.service(title, proxy.url)
    proxy.faults.extend([("POST /api/projects", "lose"), *[("GET /api/tasks", "refuse")] * 50])
    with pytest.raises(LabelServiceError):  # as good as dead: nothing after the POST gets through
        service.push(asked)
    service.close()
    proxy.faults.clear()
    after = label_studio.service(title)
    made = after.push(asked)
    assert sorted(made.values()) == [task["id"] for task in tasks_of(client, title)]
    after.close()


def test_a_task_made_twice_is_reduced_to_one(service, client, request):
    title = f"emclean {request.node.name}"
    made = service.push([question("a/00/1")])
    twin = tasks_of(client, title)[0]["data"]
    project = client.get("/api/projects", title=project_title(title))["results"][0]["id"]
    client.post(f"/api/projects/{project}/import", [{"data": twin}])
    assert len(tasks_of(client, title)) == 2
    assert service.push([question("a/00/1")]) == made
    assert [task["id"] for task in tasks_of(client, title)] == list(made.values())


def test_answers_of_every_kind(service, client):
    names = ["open", "full", "empty", "skipped", "twice", "deleted", "draft", "undone"]
    asked = {name: question(f"kinds/{i:016x}/1") for i, name in enumerate(names)}
    made = service.push(list(asked.values()))
    at = {name: made[task.key] for name, task in asked.items()}
    drawn = AnsweredBox((100.25, 50.5, 150.0, 99.75), "deposit")
    post_answer(client, at["full"], BOX, drawn, lead_time=12.5)
    post_answer(client, at["empty"])
    post_answer(client, at["skipped"], BOX, was_cancelled=True)
    post_answer(client, at["twice"], BOX)
    post_answer(client, at["twice"], drawn)
    client.delete(f"/api/tasks/{at['deleted']}/")
    client.post(f"/api/tasks/{at['draft']}/drafts", {"result": annotation_body([BOX], 320, 240)["result"]})
    client.delete(f"/api/annotations/{post_answer(client, at['undone'], BOX)}/")

    pulled = service.pull([task.key for task in asked.values()])
    name_of = {task.key: name for name, task in asked.items()}
    got = {}
    for answer in pulled.answers:
        got.setdefault(name_of[answer.key], []).append(answer)
    assert {name_of[key] for key in pulled.open} == {"open", "draft", "undone"}
    assert {name_of[key] for key in pulled.deleted} == {"deleted"}
    assert got["full"][0].boxes == (BOX, drawn)
    assert got["full"][0].lead_time_s == 12.5
    assert got["full"][0].annotator == "expert@emclean.local"
    assert (got["empty"][0].boxes, got["empty"][0].skipped) == ((), False)
    assert (got["skipped"][0].boxes, got["skipped"][0].skipped) == ((), True)
    assert [answer.boxes for answer in got["twice"]] == [(BOX,), (drawn,)]
    assert set(got) == {"full", "empty", "skipped", "twice"}


def test_an_answer_edited_again_comes_with_a_later_time(service, client):
    made = service.push([question("edit/00/1")])
    number = post_answer(client, made["edit/00/1"], BOX)
    before = service.pull(["edit/00/1"]).answers[0]
    client.patch(f"/api/annotations/{number}/", annotation_body([], 320, 240))
    after = service.pull(["edit/00/1"]).answers[0]
    assert (before.boxes, after.boxes) == ((BOX,), ())
    assert after.annotation_id == before.annotation_id
    assert after.updated_at > before.updated_at


def test_odd_labels_are_told_once(service, client, caplog):
    made = service.push([question("odd/00/1")])
    body = annotation_body([BOX, AnsweredBox((5, 5, 50, 50), "deposit · missed?")], 320, 240)
    client.post(f"/api/tasks/{made['odd/00/1']}/annotations/", body)
    for _ in range(2):
        assert service.pull(["odd/00/1"]).answers[0].boxes == (BOX,)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert "task odd/00/1" in told[0]
    assert "undecided" in told[0]


def test_the_picture_is_served(service, client, label_studio, request):
    service.push([question("pic/00aa/1")])
    address = tasks_of(client, f"emclean {request.node.name}")[0]["data"]["image"]
    assert client.picture(address) == png(320, 240)
    assert httpx.get(label_studio.url + address, trust_env=False).status_code in (401, 403)
    with pytest.raises(LabelServiceError):
        client.picture("/data/local-files/?d=../credentials.json")


def test_a_server_that_sees_the_folder_elsewhere_serves_the_pictures(client, label_studio, tmp_path, request):
    there = label_studio.server.document_root
    here = tmp_path / "documents"
    here.symlink_to(there)  # one folder with two names, as for a server in a container
    title = f"emclean {request.node.name}"[:40]

    def opened(name, server_root):
        pictures = LocalPictures(here, name, lambda record: png(320, 240), server_root)
        service = LabelStudioService(label_studio.url, label_studio.server.token(), pictures)
        try:
            service.ensure_project(f"{title} {name}", ["deposit"], "")
        finally:
            service.close()
        return pictures

    told = opened("told", str(there))
    assert client.picture(told.publish(question("else/00aa/1").image)) == png(320, 240)
    with pytest.raises(LabelServiceError, match="refused the call"):  # it knows no folder of that name
        opened("untold", "")


def test_access_tokens_are_renewed(label_studio):
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
        client.get("/api/projects")
        first = client._access
        client._access = first[:-4] + "AAAA"  # as good as expired: the server refuses it
        client.get("/api/projects")
        second = client._access
        client._access_until = 0.0
        client.get("/api/projects")
        assert first != second != client._access


def test_wrong_token_is_told(label_studio, tmp_path):
    service = LabelStudioService(label_studio.url, "a.b.c", LocalPictures(tmp_path, render=render))
    with pytest.raises(LabelServiceError, match="refused the token"):
        service.ensure_project("emclean x", ["deposit"], "")
    service.close()


def test_spoiled_answers_are_told(label_studio, proxy):
    service = label_studio.service("emclean spoiled", proxy.url)
    proxy.faults.append(("GET /api/tasks", "spoil"))
    with pytest.raises(LabelServiceError, match=f"{proxy.url}/api/tasks: .* something other than JSON"):
        service.pull(["a/b/1"])
    service.close()


def test_nothing_listening_is_told(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    service = LabelStudioService(url, "a.b.c", LocalPictures(tmp_path, render=render))
    with pytest.raises(LabelServiceError, match=f"{url}.*cannot be reached"):
        service.ensure_project("emclean x", ["deposit"], "")
    service.close()


def test_server_going_down_in_the_middle_loses_nothing(label_studio, client):
    service = label_studio.service("emclean down")
    made = service.push([question("down/00/1"), question("down/01/1")])
    post_answer(client, made["down/00/1"], BOX)
    label_studio.stop()
    for call in (lambda: service.pull(list(made)), lambda: service.push([question("down/02/1")])):
        with pytest.raises(LabelServiceError, match=label_studio.url):
            call()
    label_studio.restart()
    assert service.pull(["down/00/1", "down/01/1"]).answers[0].boxes == (BOX,)
    more = service.push([question("down/01/1"), question("down/02/1")])
    assert more["down/01/1"] == made["down/01/1"]
    service.close()


def test_two_pushing_at_once_make_one_project(label_studio, client):
    title = f"emclean race {uuid.uuid4().hex[:6]}"
    found = []

    def ensure():
        service = label_studio.service(title)
        found.append(service.ensure_project(title, ["deposit"], ""))
        service.close()

    threads = [threading.Thread(target=ensure) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def field():
    """A simulated field of 600 x 450 pixels, and three of its deposits, largest first and well apart."""
    from emclean.imaging import simulate

    made = simulate.field(np.random.default_rng(20), (450, 600))
    found = made.labels.boxes
    chosen: list[int] = []
    for i in np.argsort(-area(found)).tolist():
        if all(np.abs(centre(found)[i] - centre(found)[k]).max() > 45 for k in chosen):
            chosen.append(i)
    assert len(chosen) >= 3
    return made.pixels, found[chosen[:3]]


def as_png(pixels):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def shown_for(boxes):
    """What might be suggested for these boxes: one clean, one shifted, one spurious, one missed."""
    words = {
        "clean": "crowd and model agree",
        "shifted": "the model sees its sides elsewhere",
        "missed": "the model sees one, the crowd drew none",
        "spurious": "the crowd drew one, no model sees it",
    }
    moved = boxes.copy()
    moved[1] += (6, 5, 6, 5)
    made = [*moved.tolist(), (40.0, 380.0, 90.0, 420.0)]
    rows = zip(made, words.items(), (0.94, 0.71, 0.55, 0.23), strict=True)
    return tuple(Suggestion(f"s{i}", tuple(b), "deposit", p, g, w) for i, (b, (g, w), p) in enumerate(rows))


def picture_area(browser):
    areas = "[...document.querySelectorAll('.konvajs-content')].map(e => e.getBoundingClientRect())"
    return browser.run(f"(r => [r.x, r.y, r.width, r.height])({areas}.find(r => r.width > 0))")


def grey(screenshot):
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(screenshot)).convert("L"), dtype=np.float64)


SUBMIT = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Submit')"
REGIONS = "window.Htx?.annotationStore?.selected?.regions"
SELECTED = "window.Htx.annotationStore.selected.selectedRegions"
IMAGE = "[...Htx.annotationStore.selected.names.values()].find(tag => tag.type == 'image')"


def test_the_page_in_a_browser(label_studio, tmp_path):
    from chromium import Browser, sign_in

    pixels, boxes = field()
    shown = shown_for(boxes)
    image = ImageRecord("00bb", "/nowhere", "section-07.tif", pixels.shape[1], pixels.shape[0], 8, 1.2)
    pictures = LocalPictures(label_studio.server.document_root, "browser", lambda record: as_png(pixels))
    service = LabelStudioService(label_studio.url, label_studio.server.token(), pictures)
    words = "Mark every electron dense deposit along the basement membrane."
    address = service.ensure_project("emclean in a browser", ["deposit"], words)
    task = service.push([TaskSpec("browser/00bb/1", image, shown)])["browser/00bb/1"]

    browser = Browser(tmp_path / "profile")
    try:
        sign_in(browser, label_studio.url, label_studio.credentials)
        browser.open(f"{address}?task={task}")
        browser.wait(f"{REGIONS}?.length == 4 && document.querySelector('.konvajs-content')")
        browser.wait("[...document.querySelectorAll('img')].some(i => i.naturalWidth == 600)")
        x, y, w, h = picture_area(browser)
        assert browser.run(f"{IMAGE}.zoomScale") == 1, "borders of the picture are out of sight"

        def at(box):
            return x + w * (box[0] + box[2]) / 1200, y + h * (box[1] + box[3]) / 900

        browser.click(*at(shown[2].box))
        browser.wait("document.body.innerText.includes('the crowd drew none')")
        seen = browser.screenshot()
        drawn = grey(seen)[int(y) : int(y + h), int(x) : int(x + w)]
        resized = grey(as_png(pixels))[:: pixels.shape[0] // 60, :: pixels.shape[1] // 80]
        rows = np.linspace(0, drawn.shape[0] - 1, resized.shape[0]).astype(int)
        columns = np.linspace(0, drawn.shape[1] - 1, resized.shape[1]).astype(int)
        likeness = np.corrcoef(drawn[np.ix_(rows, columns)].ravel(), resized.ravel())[0, 1]
        assert drawn.std() > 10, "the picture's area is even"
        assert likeness > 0.5, "the page shows another picture"

        browser.press("Escape")
        browser.run(f"{SUBMIT}.click()")
        browser.wait("document.body.innerText.includes('Some suggestions are undecided')")
        browser.run("[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'OK').click()")
        assert service.pull(["browser/00bb/1"]).open == ("browser/00bb/1",)

        browser.wait("![...document.querySelectorAll('button')].some(b => b.innerText.trim() == 'OK')")
        for one, key in zip(shown, ("1", "Backspace", "1", "Backspace"), strict=True):
            if browser.run(f"{SELECTED}.length"):
                browser.press("Escape")
                browser.wait(f"{SELECTED}.length == 0", 10)
            browser.click(*at(one.box))
            browser.wait(f"{SELECTED}[0]?.cleanId == '{one.suggestion_id}'", 10)
            browser.press(key)
        browser.wait(f"{REGIONS}.length == 2")
        browser.press("Escape")
        x, y, w, h = picture_area(browser)
        browser.press("1")
        browser.drag((x + w * 0.1, y + h * 0.1), (x + w * 0.2, y + h * 0.25))
        browser.wait(f"{REGIONS}.length == 3")
        browser.run(f"{SUBMIT}.click()")
        browser.wait("[...document.querySelectorAll('button')].some(b => b.innerText.trim() == 'Update')")
    finally:
        browser.close()
    answer = service.pull(["browser/00bb/1"]).answers[0]
    service.close()
    assert [box.suggestion_id for box in answer.boxes] == ["s0", "s2", ""]
    assert answer.boxes[0].box == pytest.approx(shown[0].box, abs=1e-6)
    assert answer.boxes[2].box == pytest.approx((60, 45, 120, 112.5), abs=3)
    assert {box.category for box in answer.boxes} == {"deposit"}
    assert answer.lead_time_s is not None
