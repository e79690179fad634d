"""A simulated expert: answers Label Studio's tasks from a truth file, with set slips and pace.

    python -m emclean.simulated_expert --url http://127.0.0.1:8080 --token-file credentials.json \\
        --truth truth.coco.json --miss 0.05 --jitter 0.03 --rubber-stamp 0.2 --watch

It opens the unanswered tasks in the labelling order, looks at the suggestions of each, answers, and notes
what a person would have spent. An answer depends on the seed and the task's key alone; sending it again
changes nothing. It waits while Label Studio is away, and ends on SIGTERM, with ``--with-parent`` when the
program that started it is gone, or, without ``--watch``, when no task is left.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from emclean.errors import EmcleanError, LabelServiceError
from emclean.science.classes import expert as class_expert
from emclean.science.cost import Changes, CostModel, changes
from emclean.science.expert import Slips, answer
from emclean.stores.label_studio import choices
from emclean.stores.label_studio.client import (
    PATIENCE_S,
    AlreadyThere,
    LabelStudioClient,
    Unanswered,
    read_token,
    task_filter,
)
from emclean.stores.label_studio.convert import annotation_body, suggestions
from emclean.stores.label_studio.page import categories_of
from emclean.stores.label_studio.people import accounts
from emclean.stores.label_studio.service import project_title
from emclean.stores.truth import Truth
from emclean.types import AnsweredBox, Labels, Suggestion

PREFIX = "emclean"
"""Without a named project, all whose title starts so are answered."""

LOOK_S = 0.5
"""In a wait, seconds from one look at the parent process to the next."""

_UNANSWERED = (
    task_filter("total_annotations", "equal", "Number", 0),
    task_filter("cancelled_annotations", "equal", "Number", 0),
)


@dataclass(frozen=True)
class Options:
    """How the simulated expert works: with boxes, or where ``classes`` is set, naming classes.

    Where ``misses`` has two or more shares, so many experts name classes, each under an account of its own
    and each with its share of wrong names. ``project`` is a title, or empty for every project that starts
    with ``emclean``; ``pace`` the share of the simulated time that is really waited (0: none); ``limit`` the
    most tasks to answer; ``watch`` goes on when no task is left; ``patience_s`` how long Label Studio may be
    away; ``log`` a JSON-lines file; ``parent`` the process id of the program without which there is nothing
    to do (None: none).
    """

    project: str = ""
    classes: bool = False
    misses: tuple[float, ...] = ()
    slips: Slips = field(default_factory=Slips)
    cost: CostModel = field(default_factory=CostModel)
    pace: float = 0.0
    seed: int = 0
    limit: int | None = None
    watch: bool = False
    poll_s: float = 1.0
    patience_s: float = PATIENCE_S
    log: Path | None = None
    parent: int | None = None


@dataclass(frozen=True)
class Reply:
    """The answer to one task: what is sent, what it would have cost a person, and of several experts who
    gives it."""

    body: Mapping[str, Any]
    made: Changes
    seconds: float
    by: str = ""


@dataclass
class Work:
    """What was done: tasks answered, simulated seconds, and the pictures that the truth file lacks."""

    answered: int = 0
    seconds: float = 0.0
    unknown: set[str] = field(default_factory=set)


def reply(task: Mapping[str, Any], truth: Truth, options: Options) -> Reply:
    """What a person with these slips answers to a task as Label Studio gives it."""
    data = task["data"]
    known = truth.of(str(data["name"]))
    if known is None:
        raise LabelServiceError(f"the truth file has no picture {data['name']}", f"task {data['key']}")
    if options.classes:
        return _class_reply(data, int(known.categories[0]), truth.categories, options)
    asked = suggestions(task, truth.categories)
    shown = _labels(asked, truth.categories)
    width, height = float(data["width"]), float(data["height"])
    rng = np.random.default_rng([options.seed, _number(str(data["key"]))])
    review = data.get("kind") == "review"
    given = answer(known, shown if asked else None, options.slips, rng, width, height, only_shown=review)
    boxes = _boxes(given.labels, given.origin.tolist(), asked, truth.categories)
    made = changes(shown, given.labels, given.origin)
    seconds = options.cost.seconds(1, made)
    return Reply({**annotation_body(boxes, width, height), "lead_time": seconds}, made, seconds)


def _class_reply(data: Mapping[str, Any], truth: int, names: Sequence[str], options: Options) -> Reply:
    """The class that the expert names; whatever it was told, that takes a look and a key."""
    told = str(data.get("label") or "")
    shown = list(names).index(told) if told in names else None
    rng = np.random.default_rng([options.seed, _number(str(data["key"]))])
    misses = options.misses or (options.slips.miss,)
    turn = class_expert.answerer(len(misses), data.get("seen_by") or (), str(data["key"]))
    slips = class_expert.ClassSlips(misses[turn], options.slips.rubber_stamp)
    said = class_expert.answer(truth, shown, len(names), slips, rng)
    made = Changes(int(shown is None), int(shown not in (None, said)), 0, int(shown == said))
    seconds = options.cost.seconds(1, Changes(0, 0, 0, 1))
    body = {**choices.annotation_body(names[said]), "lead_time": seconds}
    return Reply(body, made, seconds, class_expert.names(len(misses))[turn] if options.misses else "")


def _labels(asked: Sequence[Suggestion], categories: Sequence[str]) -> Labels:
    return Labels(
        np.array([s.box for s in asked], dtype=np.float64).reshape(-1, 4),
        np.array([list(categories).index(s.category) for s in asked], dtype=np.int64),
        tuple(s.suggestion_id for s in asked),
    )


def _boxes(
    labels: Labels, origin: Sequence[int], asked: Sequence[Suggestion], categories: Sequence[str]
) -> list[AnsweredBox]:
    rows = zip(labels.boxes.tolist(), labels.categories.tolist(), origin, strict=True)
    return [
        AnsweredBox((x1, y1, x2, y2), categories[c], asked[k].suggestion_id if k >= 0 else "")
        for (x1, y1, x2, y2), c, k in rows
    ]


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


class Expert:
    """A simulated expert at work on one server; ``stop`` ends it between two tasks or in any wait."""

    def __init__(
        self,
        client: LabelStudioClient,
        truth: Truth,
        options: Options,
        stop: threading.Event,
        say: Callable[[str], None],
    ):
        self._client, self._truth, self._options = client, truth, options
        self._stop, self._say = stop, say
        self._checked: set[str] = set()
        self._accounts: Mapping[str, int] = {}
        self.work = Work()

    def run(self) -> Work:
        """Answer tasks until there is nothing to do (or for ever, when watching); return what was done."""
        away_since: float | None = None
        while not self._over():
            try:
                busy = self._round()
                away_since = None
            except Unanswered as error:
                away_since = away_since or time.monotonic()
                self._wait_for(error, away_since)
                continue
            if not busy and not self._options.watch:
                break
            if not busy:
                self._wait(self._options.poll_s)
        return self.work

    def _over(self) -> bool:
        limit = self._options.limit
        return self._told_to_end() or (limit is not None and self.work.answered >= limit)

    def _told_to_end(self) -> bool:
        """Whether there was a signal, or the parent is gone: its children then have another parent."""
        parent = self._options.parent
        return self._stop.is_set() or (parent is not None and os.getppid() != parent)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._told_to_end() and (left := end - time.monotonic()) > 0:
            self._stop.wait(min(left, LOOK_S))

    def _wait_for(self, error: Unanswered, since: float) -> None:
        if time.monotonic() - since > self._options.patience_s:
            raise error
        self._say(f"Label Studio is away, waiting: {error}")
        self._wait(max(self._options.poll_s, 1.0))

    def _round(self) -> bool:
        """Answer what is open now; tell whether anything was."""
        before = self.work.answered
        for project in self._projects():
            truth = self._known_to(project)
            for task in self._open_tasks(int(project["id"])):
                if self._over():
                    return True
                self._handle(task, truth)
        return self.work.answered > before

    def _known_to(self, project: Mapping[str, Any]) -> Truth:
        """The truth in the project's categories; what that leaves out is said once."""
        offered = choices.classes_of if self._options.classes else categories_of
        page, where = offered(project.get("label_config") or ""), f"project {project.get('title')}"
        if where not in self._checked:
            self._checked.add(where)
            for name, count in self._truth.left_out(page).items():
                self._say(f"{where}: left out {count} boxes of unknown category {name!r} in the truth")
        return self._truth.in_order(page, where)

    def _projects(self) -> list[Mapping[str, Any]]:
        listed = self._client.get("/api/projects", page_size=1000, ordering="id")
        return [project for project in listed.get("results", []) if self._mine(str(project.get("title")))]

    def _mine(self, title: str) -> bool:
        named = self._options.project
        return title == project_title(named) if named else title.startswith(PREFIX)

    def _open_tasks(self, project: int) -> list[dict[str, Any]]:
        found = self._client.tasks(project, _UNANSWERED, ("id", "data", "predictions"))
        return [task for task in found if str(task["data"].get("key")) not in self.work.unknown]

    def _handle(self, task: Mapping[str, Any], truth: Truth) -> None:
        key = str(task["data"]["key"])
        known = truth.of(str(task["data"]["name"]))
        if known is None or (self._options.classes and not len(known)):
            self.work.unknown.add(key)
            self._say(f"task {key} is left open: the truth file has no picture {task['data']['name']}")
            return
        given = reply(task, truth, self._options)
        self._wait(given.seconds * self._options.pace)
        if not self._told_to_end():
            self._send(task, key, given)

    def _send(self, task: Mapping[str, Any], key: str, given: Reply) -> None:
        unique = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{key}#{task['id']}"))
        body, repeated = {**given.body, "unique_id": unique}, False
        if given.by:
            self._accounts = self._accounts or accounts(
                self._client, class_expert.names(len(self._options.misses))
            )
            body["completed_by"] = self._accounts[given.by]
        try:
            self._client.post(f"/api/tasks/{task['id']}/annotations/", body)
        except AlreadyThere:
            repeated = True
        self.work.answered += 1
        self.work.seconds += given.seconds
        self._record(task, key, given, repeated)
        self._say(f"answered {key}: {len(given.body['result'])} boxes, {given.seconds:.0f} s")

    def _record(self, task: Mapping[str, Any], key: str, given: Reply, repeated: bool) -> None:
        if self._options.log is None:
            return
        shown = sum(len(shown["result"]) for shown in task.get("predictions") or [])
        line = {"at": datetime.now(UTC).isoformat(), "key": key, "task": task["id"], "shown": shown}
        line |= {**given.made._asdict(), "seconds": given.seconds, "repeated": repeated}
        with self._options.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def run(
    client: LabelStudioClient,
    truth: Truth,
    options: Options,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Work:
    """Answer the open tasks of a server; the function behind the program."""
    return Expert(client, truth, options, stop or threading.Event(), say).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emclean.simulated_expert",
        description="A simulated expert that answers Label Studio's tasks from a truth file.",
    )
    add = parser.add_argument
    add("--url", required=True, help="Label Studio's address")
    add("--token-file", type=Path, required=True, help="personal access token: plain, or JSON with `token`")
    add("--truth", required=True, help="the right labels, COCO JSON or CSV, found by file name")
    add("--project", default="", help=f"exact title (default: every project that starts with {PREFIX})")
    add(
        "--classes",
        metavar="COLUMN",
        help="name classes instead of drawing boxes; the truth is CSV `image,COLUMN` (or `row,COLUMN`)",
    )
    add(
        "--miss",
        type=float,
        default=0.0,
        help="share of objects without a suggestion that are overlooked; of classes that are named wrongly",
    )
    add(
        "--misses",
        type=_shares,
        default=(),
        metavar="M1,M2,…",
        help="several experts for classes, each with an account and a share of wrong names of its own",
    )
    add("--jitter", type=float, default=0.0, help="standard deviation of drawn sides, in sides")
    add("--rubber-stamp", type=float, default=0.0, help="share of wrong suggestions accepted unseen")
    for name, seconds in vars(CostModel()).items():
        add(f"--{name.replace('_', '-')}", type=float, default=seconds, help="seconds of the cost model")
    add("--pace", type=float, default=0.0, help="share of the simulated time that is really waited")
    add("--seed", type=int, default=0, help="seed of all slips")
    add("--limit", type=int, help="stop after so many tasks")
    add("--poll", type=float, default=1.0, help="seconds between looks when there is nothing to do")
    add("--log", type=Path, help="write what each answer cost to this JSON-lines file")
    add("--with-parent", type=int, metavar="PID", help="end when this process, which started it, is gone")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--watch", action="store_true", help="go on until SIGTERM")
    end.add_argument("--until-idle", action="store_true", help="end when no task is left (the default)")
    return parser


def _shares(text: str) -> tuple[float, ...]:
    """Two or more shares from 0 to 1."""
    shares = tuple(float(part) for part in text.split(","))
    if len(shares) < 2 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(text)
    return shares


def _options(given: argparse.Namespace) -> Options:
    return Options(
        project=given.project,
        classes=bool(given.classes),
        misses=given.misses,
        slips=Slips(given.miss, given.jitter, given.rubber_stamp),
        cost=CostModel(given.open_s, given.draw_s, given.move_s, given.verify_s),
        pace=given.pace,
        seed=given.seed,
        limit=given.limit,
        watch=given.watch,
        poll_s=given.poll,
        log=given.log,
        parent=given.with_parent,
    )


def _truth(given: argparse.Namespace) -> Truth:
    return Truth.of_classes(given.truth, given.classes) if given.classes else Truth.load(given.truth)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        options = _options(given)
    except ValueError as error:
        parser.error(str(error))
    stop = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: stop.set())
    try:
        with LabelStudioClient(given.url, read_token(given.token_file)) as client:
            work = run(client, _truth(given), options, stop, lambda line: print(line, flush=True))
    except EmcleanError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{work.answered} tasks answered, {work.seconds / 60:.1f} simulated minutes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
