"""The simulated expert as a program, on a real Label Studio."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from conftest import question
from flaky_proxy import FlakyProxy

from emclean.errors import LabelServiceError
from emclean.science.expert import Slips
from emclean.simulated_expert import Options, Truth, main, run
from emclean.stores.label_studio import LabelStudioClient

pytestmark = pytest.mark.services


@pytest.fixture
def truth(tmp_path):
    """A truth file for pictures 0 to 5 of 320 x 240 pixels, two objects in each."""
    boxes = [[20, 30, 60, 60], [120, 150, 40, 50]]
    content = {
        "images": [{"id": i, "file_name": f"{i:016x}.png", "width": 320, "height": 240} for i in range(6)],
        "categories": [{"id": 1, "name": "deposit"}],
        "annotations": [
            {"id": 2 * i + k, "image_id": i, "category_id": 1, "bbox": box}
            for i in range(6)
            for k, box in enumerate(boxes)
        ],
    }
    path = tmp_path / "truth.coco.json"
    path.write_text(json.dumps(content))
    return path


def asked(run_name, n=4):
    return [question(f"{run_name}/{i:016x}/1", value=-i, blind=i % 2 == 1) for i in range(n)]


def command(label_studio, truth, title, *more):
    line = ["--url", label_studio.url, "--token-file", str(label_studio.credentials)]
    return [*line, "--truth", str(truth), "--project", title, *more]


def answers_of(service, tasks):
    pulled = service.pull([task.key for task in tasks])
    assert pulled.open == ()
    return {
        answer.key: [(b.box, b.category, b.suggestion_id) for b in answer.boxes] for answer in pulled.answers
    }


def program(line):
    return subprocess.Popen(
        [sys.executable, "-m", "emclean.simulated_expert", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_it_answers_all_tasks_as_the_truth_says(label_studio, truth, tmp_path, capsys):
    title = "simulated all"
    service = label_studio.service(title)
    tasks = asked("all")
    service.push(tasks)
    log = tmp_path / "log.jsonl"
    assert main(command(label_studio, truth, title, "--log", str(log))) == 0
    assert "4 tasks answered" in capsys.readouterr().out
    got = answers_of(service, tasks)
    first, second = (20.0, 30.0, 80.0, 90.0), (120.0, 150.0, 160.0, 200.0)
    assert got[tasks[0].key] == [(first, "deposit", "s#1"), (second, "deposit", "")]
    assert got[tasks[1].key] == [(first, "deposit", ""), (second, "deposit", "")]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["key"] for row in rows] == [task.key for task in tasks]
    assert [row["seconds"] for row in rows] == [5 + 14 + 2 + 2, 5 + 28, 5 + 14 + 2 + 2, 5 + 28]
    pulled = service.pull([tasks[1].key]).answers[0]
    assert pulled.lead_time_s == 33
    service.close()


def test_in_a_review_it_decides_the_suggestions_and_draws_nothing(label_studio, truth):
    title = "simulated review"
    service = label_studio.service(title)
    whole, review = question(f"whole/{0:016x}/1"), replace(question(f"review/{1:016x}/1"), kind="review")
    service.push([whole, review])
    assert main(command(label_studio, truth, title)) == 0
    got = answers_of(service, [whole, review])
    first, second = (20.0, 30.0, 80.0, 90.0), (120.0, 150.0, 160.0, 200.0)
    assert got[whole.key] == [(first, "deposit", "s#1"), (second, "deposit", "")]
    assert got[review.key] == [(first, "deposit", "s#1")]
    service.close()


def test_answers_do_not_depend_on_order_or_repetition(label_studio, truth):
    options = Options(slips=Slips(miss=0.3, jitter=0.05, rubber_stamp=0.5), seed=5)
    got = []
    for title, limits in (("simulated once", [None]), ("simulated twice", [1, 2, None])):
        service = label_studio.service(title)
        tasks = asked("same")
        service.push(tasks if len(limits) == 1 else tasks[::-1])
        for limit in limits:
            with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
                chosen = Options(project=title, slips=options.slips, seed=5, limit=limit)
                run(client, Truth.load(truth), chosen)
        got.append(answers_of(service, tasks))
        service.close()
    assert got[0] == got[1]


def test_a_lost_answer_is_given_once(label_studio, truth):
    title = "simulated lost"
    service = label_studio.service(title)
    tasks = asked("lost", 2)
    service.push(tasks)
    proxy = FlakyProxy(label_studio.url)
    try:
        proxy.faults.append(("/annotations/", "lose"))
        said = []
        with LabelStudioClient(proxy.url, label_studio.server.token()) as client:
            work = run(client, Truth.load(truth), Options(project=title), say=said.append)
    finally:
        proxy.close()
    assert any("away" in line for line in said)
    pulled = service.pull([task.key for task in tasks])
    assert sorted(answer.key for answer in pulled.answers) == sorted(task.key for task in tasks)
    assert 1 <= work.answered <= 2
    service.close()


def test_an_answer_sent_twice_is_kept_once(label_studio, truth):
    from emclean.simulated_expert import Expert

    title = "simulated twice the same"
    service = label_studio.service(title)
    tasks = asked("again", 1)
    service.push(tasks)
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
        expert = Expert(client, Truth.load(truth), Options(project=title), threading.Event(), print)
        project = client.get("/api/projects", title=title)["results"][0]["id"]
        task = next(client.tasks(project, [], ("id", "data", "predictions")))
        for _ in range(2):
            expert._handle(task, Truth.load(truth))
    assert len(service.pull([tasks[0].key]).answers) == 1
    service.close()


def test_a_picture_without_truth_is_left_open(label_studio, truth):
    title = "simulated unknown"
    service = label_studio.service(title)
    service.push([question("unknown/00000000000000ff/1"), *asked("unknown", 1)])
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
        work = run(client, Truth.load(truth), Options(project=title))
    assert (work.answered, work.unknown) == (1, {"unknown/00000000000000ff/1"})
    service.close()


def test_projects_of_others_are_left_alone(label_studio, truth):
    service = label_studio.service("somebody's own")
    tasks = asked("alone", 1)
    service.push(tasks)
    with LabelStudioClient(label_studio.url, label_studio.server.token()) as client:
        run(client, Truth.load(truth), Options(project="simulated nobody"))
    assert service.pull([tasks[0].key]).open == (tasks[0].key,)
    service.close()


def test_it_gives_up_when_nobody_is_there_for_long(truth):
    with LabelStudioClient("http://127.0.0.1:9", "a.b.c", pause=lambda s: None) as client:
        with pytest.raises(LabelServiceError, match="cannot be reached"):
            run(client, Truth.load(truth), Options(patience_s=0.0))


def test_it_ends_with_the_program_that_started_it(truth, tmp_path):
    token = tmp_path / "token"
    token.write_text("a.b.c")
    place = ["--url", "http://127.0.0.1:9", "--token-file", str(token), "--truth", str(truth), "--watch"]
    line = [sys.executable, "-u", "-m", "emclean.simulated_expert", *place]
    code = (
        "import os, subprocess, sys, time; "
        f"child = subprocess.Popen([*{line!r}, f'--with-parent={{os.getpid()}}']); "
        "print(child.pid, flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        assert "Label Studio is away" in parent.stdout.readline()
        parent.kill()
        said, _ = parent.communicate(timeout=30)  # the expert holds the same pipe: it ends with the expert
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        parent.kill()
        parent.wait()
    assert "0 tasks answered" in said


def test_faults_end_with_the_right_code(label_studio, truth, tmp_path, capsys):
    token = tmp_path / "token"
    token.write_text("a.b.c")
    line = ["--url", label_studio.url, "--token-file", str(token), "--truth", str(truth)]
    assert main(line) == 4
    assert "refused the token" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*line, "--miss", "7"])


def test_it_waits_for_a_server_that_is_away_and_ends_when_told(label_studio, truth):
    title = "simulated away"
    service = label_studio.service(title)
    first, *rest = asked("away", 3)
    service.push([first])
    expert = program(command(label_studio, truth, title, "--watch", "--poll", "0.2"))
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(expert.stdout.readline, "")))
    reader.start()

    def until(words):
        end = time.monotonic() + 60
        while not any(words in line for line in lines):
            assert time.monotonic() < end, lines
            time.sleep(0.1)

    try:
        until(f"answered {first.key}")
        label_studio.stop()
        until("Label Studio is away")
        label_studio.restart()
        service.push(rest)
        until(f"answered {rest[-1].key}")
        expert.send_signal(signal.SIGTERM)
        assert expert.wait(timeout=20) == 0
    finally:
        expert.kill()
        expert.wait()
        reader.join()
        expert.stdout.close()
    assert "3 tasks answered" in lines[-1]
    assert len(service.pull([first.key, *[task.key for task in rest]]).answers) == 3
    service.close()
