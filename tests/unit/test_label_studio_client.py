import json

import httpx
import pytest

from emclean.errors import LabelServiceError
from emclean.stores.label_studio.client import AlreadyThere, LabelStudioClient, Unanswered, read_token
from emclean.stores.label_studio.pictures import LocalPictures
from emclean.types import ImageRecord

SECRET = "header.payload.signature"


class Server:
    """Answers calls from a list of responses (or exceptions) and keeps what was asked."""

    def __init__(self, *answers, access="access-1"):
        self.answers, self.calls, self.refreshed, self.access = list(answers), [], 0, access

    def __call__(self, request):
        if request.url.path == "/api/token/refresh":
            self.refreshed += 1
            known = json.loads(request.content)["refresh"] == SECRET
            return (
                httpx.Response(200, json={"access": self.access}) if known else httpx.Response(401, json={})
            )
        self.calls.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, token=SECRET):
        transport = httpx.MockTransport(self)
        return LabelStudioClient("http://127.0.0.1:9/", token, pause=lambda s: None, transport=transport)


def ok(value=None, status=200):
    return httpx.Response(status, json=value if value is not None else {})


def test_access_token_is_fetched_once_and_sent():
    server = Server(ok(), ok())
    client = server.client()
    client.get("/api/a")
    client.get("/api/b")
    assert server.refreshed == 1
    assert server.calls[1].headers["Authorization"] == "Bearer access-1"


def test_refused_access_token_is_renewed_and_the_call_sent_again():
    server = Server(ok(status=401), ok({"n": 1}))
    assert server.client().post("/api/a", {}) == {"n": 1}
    assert (server.refreshed, len(server.calls)) == (2, 2)


def test_wrong_token_says_what_to_do_and_shows_no_secret():
    server = Server()
    client = server.client("wrong.secret.token")
    with pytest.raises(LabelServiceError, match="personal access token") as caught:
        client.get("/api/a")
    assert "secret" not in str(caught.value) + repr(caught.value) + repr(client)


def test_reading_is_retried_and_writing_is_not():
    server = Server(ok(status=502), httpx.ConnectError("no"), ok({"n": 1}))
    assert server.client().get("/api/a") == {"n": 1}
    server = Server(httpx.ReadTimeout("late"))
    with pytest.raises(Unanswered, match="in time"):
        server.client().post("/api/a", {})
    assert len(server.calls) == 1


def test_reading_gives_up_in_the_end():
    server = Server(*[httpx.ConnectError("refused")] * 5)
    with pytest.raises(Unanswered, match=r"http://127\.0\.0\.1:9/api/a: Label Studio cannot be reached"):
        server.client().get("/api/a", secret="no")
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (ok(status=409), AlreadyThere, "already"),
        (ok(status=403), LabelServiceError, "refused the token"),
        (ok({"detail": "no such field"}, 400), LabelServiceError, "no such field"),
        (httpx.Response(404, text="<html>gone"), LabelServiceError, "status 404: <html>gone"),
        (ok(status=503), Unanswered, "status 503"),
        (httpx.Response(200, text="<html>"), LabelServiceError, "other than JSON"),
    ],
)
def test_failures_are_told_apart(answer, kind, words):
    with pytest.raises(kind, match=words) as caught:
        Server(answer).client().post("/api/a", {})
    assert caught.value.where == "http://127.0.0.1:9/api/a"


def test_page_of_another_form_is_refused():
    with pytest.raises(LabelServiceError, match="without a list of tasks"):
        list(Server(ok([1])).client().tasks(1, [], ("id",)))


def test_pages_are_keyed_by_id():
    server = Server(ok({"tasks": [{"id": 4}, {"id": 9}]}), ok({"tasks": [{"id": 12}]}))
    found = list(server.client().tasks(1, [], ("id",), page_size=2))
    assert [task["id"] for task in found] == [4, 9, 12]
    query = json.loads(server.calls[1].url.params["query"])
    assert query["filters"]["items"][-1]["value"] == 9
    assert "page" not in server.calls[1].url.params


def test_deleting_what_is_gone_is_no_fault():
    Server(ok(status=404)).client().delete("/api/tasks/1/")


def test_malformed_address():
    with pytest.raises(LabelServiceError, match="not an address"):
        LabelStudioClient("http://[bad", SECRET)


def test_token_files(tmp_path):
    plain, full, empty = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    plain.write_text(SECRET + "\n")
    full.write_text(json.dumps({"token": SECRET}))
    empty.write_text("{}")
    assert read_token(plain) == read_token(full) == SECRET
    for path in (empty, tmp_path / "missing"):
        with pytest.raises(LabelServiceError, match=str(path)):
            read_token(path)


def record(path, name="p"):
    return ImageRecord(name, str(path), path.name, 4, 4)


def test_pictures_are_copied_once(tmp_path):
    png = tmp_path / "a.dat"
    png.write_bytes(b"\x89PNG\r\n\x1a\nrest")
    pictures = LocalPictures(tmp_path / "served")
    assert pictures.publish(record(png)) == "/data/local-files/?d=pictures/p.png"
    png.unlink()
    assert pictures.publish(record(png)).endswith("p.png")
    assert [f.name for f in (tmp_path / "served/pictures").iterdir()] == ["p.png"]


def test_pictures_that_browsers_cannot_show_need_a_render(tmp_path):
    tiff = tmp_path / "a.tif"
    tiff.write_bytes(b"II*\x00rest")
    with pytest.raises(LabelServiceError, match="cannot show"):
        LocalPictures(tmp_path / "served").publish(record(tiff))
    shown = LocalPictures(tmp_path / "served", render=lambda r: b"\x89PNG\r\n\x1a\n" + r.name.encode())
    shown.publish(record(tiff))
    assert (tmp_path / "served/pictures/p.png").read_bytes().endswith(b"a.tif")


def test_missing_picture_is_named(tmp_path):
    with pytest.raises(LabelServiceError, match=r"missing\.png"):
        LocalPictures(tmp_path / "served").publish(record(tmp_path / "missing.png"))
