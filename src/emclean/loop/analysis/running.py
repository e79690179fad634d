"""The flow of an analysis: classifiers, levels of every picture, windows that are not on file, results."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from emclean.errors import DataError
from emclean.imaging import pose
from emclean.imaging.segmentation import Levels
from emclean.loop.analysis import labelling, publishing, results
from emclean.loop.analysis.gathering import gather
from emclean.loop.analysis.judges import Judges, judges
from emclean.loop.analysis.opening import Analysis, settings_of, wanted_of
from emclean.loop.analysis.particles import Particles
from emclean.loop.analysis.pieces import RECIPE, Measured, Micrograph, Piece, Pieces
from emclean.loop.analysis.segmenters import digest_of, segmenter
from emclean.loop.analysis.work import Measuring, Search
from emclean.loop.console import Console
from emclean.loop.states import locked
from emclean.types import SetAside

OVERLAYS = 6
"""Pictures that the report shows with what was found."""


@dataclass(frozen=True)
class Outcome:
    """The summary's path, and the exit code."""

    summary: Path
    code: int = 0


@dataclass
class Progress:
    """How far the windows are, in millions of px; ``faults`` are the reasons by picture."""

    console: Console
    pieces: int
    total: int
    done: int = 0
    ended: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def __call__(self, text: str) -> None:
        """Take note of what came out of a window."""
        out = json.loads(text)
        self.ended, self.done = self.ended + 1, self.done + out["pixels"]
        if out["reason"] is not None:
            self.faults.setdefault(out["image_id"], out["reason"])
        words = f"{self.ended} of {self.pieces} windows are done; million pixels"
        self.console.progress(words, round(self.done / 1e6, 1), round(self.total / 1e6, 1), self.since)


def run(analysis: Analysis) -> Outcome:
    """Run the analysis to its end; a window that is on file is not worked through again."""
    with locked(analysis.folder), results.followed(analysis) as run_id:
        network = segmenter(analysis)
        clean = analysis.clean(network)
        found = _judges(analysis, clean)
        measured, aside = measure(analysis, network)
        plan = planned(analysis, measured, found, network)
        spent, faults = search(analysis, plan, found, network)
        names = {picture.image_id: picture.name for picture in analysis.pictures}
        aside += [SetAside("image", names[image], reason) for image, reason in faults.items()]
        usable = [entry for entry in plan if entry[0].image_id not in faults]
        if not usable:
            reasons = "; ".join(f"{item.item}: {item.reason}" for item in aside[:3])
            raise DataError(f"no picture can be analysed ({reasons}).", "data.images", "Check them.")
        with analysis.console.stage("gathering the particles"):
            wanted = analysis.settings.classifier.usable_from
            drawing = drawing_of(analysis, clean)
            home = windows_home(analysis)
            gathered = gather(usable, home, analysis.folder, wanted, OVERLAYS, drawing.offer)
            to_label = labelling.write(drawing, analysis.folder / "labelling")
        served = publishing.publish(analysis, found, network, run_id)
        file = results.write(
            analysis, gathered, found, aside, spent, {**asdict(served), "labelling": to_label}
        )
        results.tell(analysis, run_id)
        for picture in analysis.pictures:
            picture.decoded_in(analysis.home).unlink(missing_ok=True)
        return Outcome(file)


def _judges(analysis: Analysis, clean: Particles | None) -> Judges:
    """The classifiers, trained where they are not given and not on file."""
    wanted = wanted_of(analysis.settings)
    words = "testing the classifiers" if wanted.weights and wanted.usable_weights else "training classifiers"
    with analysis.console.stage(words) as progress:
        found = judges(wanted, clean, analysis.home, progress)
    if clean is not None:
        found = replace(found, facts={**found.facts, publishing.REVISION: publishing.revision(clean)})
    analysis.console.say(results.judged_words(found))
    return found


def drawing_of(analysis: Analysis, clean: Particles | None) -> labelling.Drawing:
    """Which particles people are to label: none that they have labelled already."""
    keys, theirs = analysis.settings.labelling, clean if analysis.settings.data.labels else None
    bright, known = settings_of(analysis.settings).bright, labelling.labelled_already(theirs)
    seed = analysis.settings.seed
    return labelling.Drawing(keys.particles, keys.random, seed, bright, known, analysis.home)


def windows_home(analysis: Analysis) -> Path:
    """Where the finished windows lie."""
    return analysis.home / "windows"


def measure(
    analysis: Analysis, network: str | None
) -> tuple[list[tuple[Micrograph, Measured]], list[SetAside]]:
    """The levels of every picture, in order, and the pictures that cannot be read."""
    keys = analysis.settings.segmentation
    home = analysis.home / "levels"
    settings = settings_of(analysis.settings)
    work = Measuring(settings, keys.length_nm, keys.pixel_size_nm, str(analysis.home), network)
    given = [asdict(settings), keys.length_nm, keys.pixel_size_nm, digest_of(network), RECIPE]
    known, pieces = {}, []
    for picture in analysis.pictures:
        key = _digest([picture.image_id, *given])
        known[picture.image_id] = key
        if not (home / f"{key}.json").exists():
            pieces.append(json.dumps({"key": key, "uri": picture.uri, "image_id": picture.image_id}))
    faults: dict[str, str] = {}
    with analysis.console.stage(f"measuring {len(pieces)} of {len(known)} pictures") as progress:
        done = 0

        def ended(text: str) -> None:
            nonlocal done
            out, done = json.loads(text), done + 1
            if out["reason"] is not None:
                faults[out["key"]] = out["reason"]
            progress(done, len(pieces))

        analysis.runner.run(work, pieces, ended)
    aside = list(analysis.set_aside)
    found = []
    for picture in analysis.pictures:
        key = known[picture.image_id]
        if key in faults:
            aside.append(SetAside("image", picture.name, faults[key]))
        else:
            found.append((picture, kept_levels(home / f"{key}.json")))
    return found, aside


def kept_levels(file: Path) -> Measured:
    """What :class:`Measuring` has written down of a picture."""
    given = json.loads(file.read_text(encoding="utf-8"))
    shape = given["shape"][0], given["shape"][1]
    return Measured(shape, given["nm"], Levels(**given["levels"]))


def _digest(facts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


Plan = list[tuple[Micrograph, Measured, Pieces]]


def planned(
    analysis: Analysis,
    measured: Sequence[tuple[Micrograph, Measured]],
    found: Judges,
    network: str | None,
) -> Plan:
    """The windows of every picture."""
    given: Mapping[str, Any] = {
        "segmentation": asdict(settings_of(analysis.settings)),
        "segmenter": digest_of(network),
        "judges": found.digest(),
        "usable_from": analysis.settings.classifier.usable_from,
        "pose": [pose.SIDE, pose.FILL],
    }
    core = analysis.settings.segmentation.window
    return [(picture, levels, Pieces(picture, levels, core, given)) for picture, levels in measured]


def search(
    analysis: Analysis, plan: Plan, found: Judges, network: str | None
) -> tuple[results.Spent, dict[str, str]]:
    """Work through the windows that are not on file; what it took, and the faults by picture.

    However many there are, one at a time is in memory here.
    """
    every, missing, pixels = 0, 0, 0
    for piece, done in _windows(analysis, plan):
        every, missing, pixels = every + 1, missing + (not done), pixels + (not done) * piece.pixels
    analysis.console.say(f"{every} windows: {every - missing} on file, {missing} to do")
    progress = Progress(analysis.console, missing, pixels)
    work = Search(
        settings_of(analysis.settings),
        found.hand,
        found.usable,
        analysis.settings.classifier.usable_from,
        str(analysis.home),
        network,
    )
    analysis.runner.run(work, (p.text() for p, done in _windows(analysis, plan) if not done), progress)
    seconds = time.monotonic() - progress.since
    return results.Spent(every, missing, pixels, seconds), progress.faults


def _windows(analysis: Analysis, plan: Plan) -> Iterator[tuple[Piece, bool]]:
    """Every window, and whether it is on file."""
    home = windows_home(analysis)
    for _, _, pieces in plan:
        for piece in pieces:
            yield piece, (home / f"{piece.key}.parquet").exists()
