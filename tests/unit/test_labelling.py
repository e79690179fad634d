"""Cut-outs to label: a random sample first, the least sure next, none twice, no label ever written over."""

import csv
import json

import analysis_toys
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emclean.config import load_analysis
from emclean.errors import DataError
from emclean.imaging import simulate
from emclean.imaging.segmentation import Levels
from emclean.loop.analysis import judges, opening, results, running
from emclean.loop.analysis.labelling import CALLED, CHOSEN, LABELS, RANDOM, Drawing, digest, margin
from emclean.loop.analysis.particles import NAMES, Particles
from emclean.loop.analysis.pieces import Measured, Micrograph
from emclean.loop.console import Console
from emclean.models.classifiers import engine
from emclean.stores.fakes import FolderRegistry, InMemoryTracker

LEVELS = Measured((64, 64), None, Levels(0.0, 255.0, 60.0, 40.0, 900.0))


def offered(drawing, order=(1, 2, 3), n=40):
    """A drawing to which pictures of ``n`` particles each were offered; their candidates by sort."""
    for number in order:
        rng = np.random.default_rng(number)
        mask = [None if k % 4 == 3 else b"m" for k in range(n)]
        found = {name: np.zeros(n) for name in ("y1", "x1", "y2", "x2")}
        found |= {"p_usable": np.full(n, 0.9), "p_left": rng.random(n)}
        found["mask"] = np.array(mask, dtype=object)
        words = np.array(["left"] * n, dtype=object)
        columns = {"set_aside": np.array([""] * n, dtype=object), "hand": words, "particle": np.arange(n)}
        drawing.offer(Micrograph(str(number), "", f"{number:016x}", "s"), LEVELS, columns, found)
    return {how: [(one.picture.name, one.number) for _, one in kept] for how, kept in drawing._kept.items()}


def test_what_is_drawn_does_not_depend_on_the_order_of_pictures():
    one, other = offered(Drawing(20, 0.5, 1)), offered(Drawing(20, 0.5, 1), (3, 1, 2))
    assert one == other
    assert one[RANDOM] != offered(Drawing(20, 0.5, 2))[RANDOM]
    assert all(number % 4 != 3 for _, number in one[RANDOM])  # what was not judged is nobody's to label


def test_every_judged_particle_is_as_likely_to_be_drawn():
    counts = np.zeros(3)
    for seed in range(60):
        for name, _ in offered(Drawing(9, 1.0, seed))[RANDOM]:
            counts[int(name) - 1] += 1
    assert counts.sum() == 540
    assert np.abs(counts / 540 - 1 / 3).max() < 0.1


def test_the_chosen_are_those_whose_likeliest_class_is_hardly_likelier_than_the_next():
    assert margin(np.array([1.0, 1.0, 0.5]), np.array([0.9, 0.5, 1.0])).tolist() == pytest.approx([0.8, 0, 0])
    drawing = Drawing(10, 0.0, 0)
    offered(drawing)
    kept = drawing._kept[CHOSEN]
    assert len(kept) == 10
    p_left = [np.random.default_rng(int(one.picture.name)).random(40)[one.number] for _, one in kept]
    assert np.abs(np.array(p_left) - 0.5).max() < 0.15


def _clean(drawn):
    n = len(drawn)
    pictures = np.zeros((n, 4, 4), np.uint8)
    return Particles(pictures, np.arange(n) % 2, np.arange(n) // 2, "test", drawn=np.array(drawn))


def test_only_a_random_sample_counts_mistakes_and_groups_stay_whole():
    clean = _clean([True] * 24 + [False] * 37)
    train, test = judges._parts(clean, judges.Wanted())
    assert set(test) <= set(range(24))
    assert 10 <= len(test) <= 14  # half of the random ones at most
    assert set(range(26, 61)) <= set(train)
    assert not set(clean.groups[train]) & set(clean.groups[test])
    both = judges.Wanted(weights="a", usable_weights="b")
    assert judges._parts(clean, both)[1].tolist() == list(range(24))
    with pytest.raises(DataError, match="no labelled particle was drawn at random"):
        judges._parts(_clean([False] * 30), judges.Wanted())


def cutouts(folder, names):
    (folder / "p").mkdir()
    for k, name in enumerate(names):
        Image.fromarray(np.full((128, 128), 20 + k, np.uint8)).save(folder / "p" / name)
    return str(folder / "p")


def test_names_tell_what_was_chosen_and_sources_what_an_expert_said(tmp_path):
    names = ["random-1.png", "random-2.png", "chosen-3.png", "chosen-4.png"]
    folder, file = cutouts(tmp_path, names), tmp_path / "l.csv"
    file.write_text(
        "image,label\n" + "".join(f"{n},{h}\n" for n, h in zip(names, ("left", "right") * 2, strict=True))
    )
    made = opening.labelled(folder, str(file), tmp_path / "home")
    assert made.drawn.tolist() == [True, True, False, False]
    assert made.random.tolist() == [0, 1]
    file.write_text(
        "image,label,source\nrandom-1.png,left,expert\nrandom-2.png,unusable,crowd\nchosen-3.png,right,auto\n"
    )
    alone = opening.labelled(folder, str(file), tmp_path / "home")
    assert (len(alone.labels), alone.drawn) == (1, None)
    file.write_text("image,label,source\nrandom-1.png,left,crowd\n")
    with pytest.raises(DataError, match="no label of source expert"):
        opening.labelled(folder, str(file), tmp_path / "home")


@pytest.fixture
def analyse(tmp_path, monkeypatch):
    """Run an analysis of simulated micrographs with these settings; its summary."""
    registry = FolderRegistry(tmp_path / "registry")
    monkeypatch.setattr(opening, "MlflowTracker", lambda *_: InMemoryTracker())
    monkeypatch.setattr(opening, "MlflowRegistry", lambda *_: registry)
    monkeypatch.setattr(results.analysis_page, "render", lambda data: "")
    recipe = simulate.Recipe(zoom=0.35, density=24, left=0.4, usable=0.7)
    written = simulate.write_micrographs(tmp_path, 2, 420, 3, recipe, (0.4,))

    def run(name, *more):
        given = [
            f"workspace={tmp_path / 'w'}",
            f"run={name}",
            "compute=inline",
            f"data.images={written.images}",
        ]
        with opening.opened(load_analysis(None, [*given, *more]), Console()) as analysis:
            return json.loads(running.run(analysis).summary.read_text())

    run.written, run.registry = written, registry
    run.folder = tmp_path / "w" / "runs"
    run.weights = [
        f"classifier.weights={analysis_toys.classifier(tmp_path, 'hand', True)}",
        f"classifier.usable_weights={analysis_toys.classifier(tmp_path, 'usable', False)}",
    ]
    return run


def rows_of(file):
    text = file.read_text()
    return list(csv.DictReader(text.splitlines(), delimiter=";" if ";" in text else ","))


def told_by_truth(analyse, run):
    """The label file of a run, filled in by the truth of the simulated micrographs."""
    labels = rows_of(analyse.folder / run / "labelling" / LABELS)
    table = pq.read_table(analyse.folder / run / "particles.parquet").to_pylist()
    place = {(row["image"], row["particle"]): (row["x"], row["y"]) for row in table}
    truth = rows_of(analyse.written.truth)
    for row in labels:
        x, y = place[row["micrograph"], int(row["particle"])]
        near = min(
            (one for one in truth if one["image"] == row["micrograph"]),
            key=lambda one: np.hypot(float(one["x"]) - x, float(one["y"]) - y),
        )
        row["label"] = near["hand"] if near["usable"] == "1" else NAMES[2]
    return labels


def write(file, rows):
    with file.open("w", newline="") as stream:
        out = csv.DictWriter(stream, rows[0].keys(), delimiter=";")  # as a spreadsheet in Europe saves it
        out.writeheader()
        out.writerows(rows)


@pytest.mark.slow
def test_the_round_trip_run_label_run_again(analyse):
    first = analyse("one", *analyse.weights, "labelling.particles=40")
    folder = analyse.folder / "one" / "labelling"
    assert first["labelling"] == {"folder": str(folder), "random": 24, "chosen": 16}
    assert (first["confusion"], first["promoted"]) == (None, True)
    assert {row["label"] for row in rows_of(folder / LABELS)} == {""}
    labels = told_by_truth(analyse, "one")
    assert {row["label"] for row in labels} == set(NAMES)
    write(folder / LABELS, labels)
    assert analyse("one", *analyse.weights, "labelling.particles=40")["labelling"] == first["labelling"]
    theirs = [f"data.particles={folder / 'particles'}", f"data.labels={folder / LABELS}"]
    small = ["classifier.steps=4", "classifier.batch=8", "classifier.size=16", "labelling.particles=12"]
    second = analyse("two", *theirs, *small)
    assert second["classifier"]["tested on"] == 12  # half of the random ones
    assert second["confusion"]["symmetric"]
    assert second["promoted"]
    fresh = analyse.folder / "two" / "labelling"
    assert (second["labelling"]["random"], second["labelling"]["chosen"]) == (7, 5)
    assert not contents(fresh, RANDOM) & contents(folder, RANDOM)
    assert not contents(fresh, CHOSEN) & (contents(folder, "") | contents(fresh, RANDOM))


@pytest.mark.slow
def test_a_doubtful_particle_that_is_labelled_may_still_be_drawn_at_random(analyse):
    analyse("one", *analyse.weights, "labelling.particles=30", "labelling.random=0")
    folder = analyse.folder / "one" / "labelling"
    write(folder / LABELS, told_by_truth(analyse, "one"))
    theirs = [f"data.particles={folder / 'particles'}", f"data.labels={folder / LABELS}"]
    given = [*analyse.weights, "classifier.confusion=[9, 1, 1, 9]"]
    analyse("two", *theirs, *given, "labelling.particles=500", "labelling.random=1")
    every = pq.read_table(analyse.folder / "two" / "particles.parquet").to_pylist()
    judged = sum(row["p_left"] is not None for row in every)
    assert len(contents(analyse.folder / "two" / "labelling", RANDOM)) == judged > 40


def contents(folder, how):
    """The digests of the cut-outs of a sort."""
    files = (folder / "particles").glob(f"{how}*.png")
    return {digest(np.asarray(Image.open(file))) for file in files}


@pytest.mark.slow
def test_labels_that_were_begun_are_never_written_over(analyse):
    analyse("one", *analyse.weights, "labelling.particles=6")
    file = analyse.folder / "one" / "labelling" / LABELS
    analyse("one", *analyse.weights, "labelling.particles=5")
    assert len(rows_of(file)) == 5  # nobody had begun
    rows = rows_of(file)
    rows[2]["label"] = "left"
    write(file, rows)
    before = file.read_bytes()
    found = analyse("one", *analyse.weights, "labelling.particles=6")
    assert file.read_bytes() == before
    assert found["labelling"]["random"] + found["labelling"]["chosen"] == 5
    assert analyse("two", *analyse.weights, "labelling.particles=0")["labelling"] is None
    assert not (analyse.folder / "two" / "labelling").exists()


@pytest.mark.slow
def test_a_cut_out_is_what_the_classifiers_saw_and_the_calls_stand_in_a_file_of_their_own(analyse):
    analyse("one", *analyse.weights, "labelling.particles=10", "segmentation.window=130")
    folder = analyse.folder / "one" / "labelling"
    table = pq.read_table(analyse.folder / "one" / "particles.parquet").to_pylist()
    known = {(row["image"], row["particle"]): row for row in table}
    hand = engine.load(analyse.weights[0].partition("=")[2])
    calls = {row["image"]: row["label"] for row in rows_of(folder / CALLED)}
    rows = rows_of(folder / LABELS)
    assert [row["image"] for row in rows] == sorted(calls, key=lambda name: name[7:11])
    assert [row["image"].startswith(RANDOM) for row in rows] == [True] * 6 + [False] * 4
    for row in rows:
        row_there = known[row["micrograph"], int(row["particle"])]
        pixels = np.asarray(Image.open(folder / "particles" / row["image"]))
        assert engine.predict(hand, pixels[None])[0, 0] == pytest.approx(row_there["p_left"], abs=1e-6)
        assert calls[row["image"]] == (row_there["set_aside"] or row_there["hand"])
