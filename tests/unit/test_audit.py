"""The audit: planted errors come first, files round, nothing bad is fatal, work grows with the boxes."""

import csv
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from science_scenes import RATES, SIDE, Scene, scenes

from emclean import audit, cli
from emclean.audit import findings, graders, judging, pictures, sources, tables
from emclean.audit.checks import average_precision, calibration_error
from emclean.boxes import intersection, to_xywh
from emclean.errors import ConfigError, DataError, LabelError
from emclean.science import calibration
from emclean.science.grading import Evidence, Rules, features, grade
from emclean.science.grading.grade import verdicts
from emclean.science.noise import NoiseRates
from emclean.stores.formats import ImageEntry, coco
from emclean.types import GRADES, Labels, Predictions

CATEGORIES = [{"id": 5, "name": "particle"}, {"id": 9, "name": "vesicle"}]


def images(cases: list[Scene]) -> list[dict]:
    return [
        {"id": i + 1, "file_name": f"{i}.png", "width": SIDE, "height": SIDE, "case": "kept"}
        for i in range(len(cases))
    ]


def rows(image: int, labels: Labels | Predictions) -> list[dict]:
    return [
        {"image_id": image + 1, "category_id": CATEGORIES[c]["id"], "bbox": box}
        for c, box in zip(labels.categories, to_xywh(labels.boxes).tolist(), strict=True)
    ]


def written(path: Path, cases: list[Scene], sets: list[Labels]) -> str:
    """A COCO file of these labels; ids count from 1 over the whole file."""
    annotations = [row for i, labels in enumerate(sets) for row in rows(i, labels)]
    annotations = [{"id": k, **row, "colour": "red"} for k, row in enumerate(annotations, start=1)]
    content = {"images": images(cases), "categories": CATEGORIES, "annotations": annotations}
    path.write_text(json.dumps(content))
    return str(path)


def results(path: Path, cases: list[Scene]) -> str:
    found = [
        {**row, "score": score}
        for i, case in enumerate(cases)
        for row, score in zip(
            rows(i, case.evidence.reference), case.evidence.reference.scores.tolist(), strict=True
        )
    ]
    path.write_text(json.dumps(found))
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Eight planted scenes as files: labels, results, truth; and the scenes."""
    cases = scenes(4, 8, RATES, n_categories=2)
    return (
        written(tmp_path / "labels.json", cases, [c.planted.labels for c in cases]),
        results(tmp_path / "results.json", cases),
        written(tmp_path / "truth.json", cases, [c.truth for c in cases]),
        cases,
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_planted_errors_come_before_clean_labels(files, tmp_path):
    labels, seen, _, cases = files
    out = audit.audit(labels, seen, tmp_path / "out")
    ledger, first = set(), 1
    for case in cases:
        noisy = case.planted.ledger.noisy
        ledger |= {str(first + n) for n in noisy[noisy >= 0]}
        first += len(case.planted.labels)
    found = table(tmp_path / "out" / "instances.csv")
    assert [int(row["rank"]) for row in found] == list(range(1, len(found) + 1))
    errors = [float(row["error"]) for row in found]
    assert errors == sorted(errors, reverse=True)
    judged = [row["label_id"] in ledger for row in found if row["label_id"]]
    assert len(judged) == out.labels == first - 1
    half = len(judged) // 2
    assert sum(judged[:half]) > 3 * sum(judged[half:])
    missed = [row for row in found if row["grade"] == "missed"]
    assert missed
    assert {row["fix"] for row in missed} == {"add"}


def test_without_truth_everything_is_marked_uncalibrated(files, tmp_path, capsys):
    labels, seen, *_ = files
    assert cli.main(["audit", labels, seen, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "UNCALIBRATED" in said
    assert "expected (uncalibrated)" in said
    for name in ("instances.csv", "images.csv"):
        assert {row["calibrated"] for row in table(tmp_path / "out" / name)} == {"no"}
    content = json.loads((tmp_path / "out" / "audited.coco.json").read_text())
    assert {row["audit"]["calibrated"] for row in content["annotations"]} == {False}
    page = (tmp_path / "out" / "audit.html").read_text()
    assert '<span class="pill warn">uncalibrated</span>' in page
    assert not (tmp_path / "out" / "corrected.coco.json").exists()


def test_the_audited_file_holds_every_label_as_it_was_and_what_is_proposed(files, tmp_path):
    labels, seen, *_ = files
    audit.audit(labels, seen, tmp_path / "out")
    before = json.loads(Path(labels).read_text())
    after = json.loads((tmp_path / "out" / "audited.coco.json").read_text())
    assert after["images"] == before["images"]
    assert after["categories"] == before["categories"]
    bare = [{k: v for k, v in row.items() if k != "audit"} for row in after["annotations"]]
    assert bare == before["annotations"]
    cells = {row["label_id"]: row for row in table(tmp_path / "out" / "instances.csv") if row["label_id"]}
    for row in after["annotations"]:
        told, cell = row["audit"], cells[str(row["id"])]
        assert (told["grade"], told["fix"], told["reason"]) == (cell["grade"], cell["fix"], cell["reason"])
        assert told["error"] == float(cell["error"])
        if told["fix"] == "move":
            assert told["bbox"] != row["bbox"]
        if told["fix"] == "relabel":
            assert told["category_id"] != row["category_id"]
            (other,) = [c["name"] for c in CATEGORIES if c["id"] == told["category_id"]]
            assert told["reason"] == f"the model calls it {other}"
        if told["fix"] == "split":
            assert len(told["parts"]) >= 2
    read = coco.read(str(tmp_path / "out" / "audited.coco.json"))
    assert sum(len(own) for own in read.labels.values()) == len(before["annotations"])
    assert after["proposed"]
    assert {row["audit"]["grade"] for row in after["proposed"]} == {"missed"}


class Known(Rules):
    """Rules that pass for a calibrator, and remember which images it was fitted to."""

    calibrated = True
    observations = None

    def __init__(self, evidences):
        super().__init__()
        object.__setattr__(self, "seen", {e.labels.boxes.tobytes() for e in evidences})


@pytest.fixture
def known(monkeypatch):
    """Calibration replaced by rules, so that it takes no time; it allows deletions and additions."""
    made: list[Known] = []

    def fit(evidences, truths, rng):
        made.append(Known(evidences))
        return made[-1]

    limits = {"spurious": 0.5, "missed": 0.5, "shifted": float("inf")}
    monkeypatch.setattr(calibration, "fit", fit)
    monkeypatch.setattr(calibration, "thresholds", lambda seen, precision: limits)
    return made


def test_no_image_is_judged_with_its_own_truth(files, tmp_path, known, monkeypatch):
    labels, seen, truth, cases = files
    judged = []

    def spy(evidence, grader=None):
        judged.append((evidence.labels.boxes.tobytes(), grader))
        return grade(evidence, grader)

    monkeypatch.setattr(judging, "grade", spy)
    out = audit.audit(labels, seen, tmp_path / "out", truth=truth)
    assert len(judged) == len(cases)
    assert all(image not in grader.seen for image, grader in judged)
    assert len(known[0].seen) == len(cases)
    assert out.check is not None
    assert out.check.images == len(cases)
    assert out.calibrated


def test_safe_fixes_go_into_the_corrected_file_and_truth_stands(files, tmp_path, known):
    labels, seen, truth, _ = files
    content = json.loads(Path(truth).read_text())
    content["images"] = content["images"][:2]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] <= 2]
    Path(truth).write_text(json.dumps(content))
    out = audit.audit(labels, seen, tmp_path / "out", truth=truth)
    after = json.loads((tmp_path / "out" / "corrected.coco.json").read_text())["annotations"]
    ids = [row["id"] for row in after]
    assert len(set(ids)) == len(ids)
    expert = [row["bbox"] for row in after if row["image_id"] <= 2]
    assert np.allclose(expert, [row["bbox"] for row in content["annotations"]], atol=0.01)
    assert {row["source"] for row in after if row["image_id"] <= 2} == {"expert"}
    cells = [r for r in table(tmp_path / "out" / "instances.csv") if r["image"] not in ("0.png", "1.png")]
    sure = [r for r in cells if float(r["probability"]) >= 0.5]
    gone = {int(r["label_id"]) for r in sure if r["grade"] == "spurious"}
    added = [r for r in after if r.get("source") == "auto"]
    assert gone
    assert not gone & set(ids)
    assert len(added) == sum(r["fix"] == "add" for r in sure)
    assert out.corrections is not None
    assert (out.corrections["spurious"], out.corrections["missed"]) == (len(gone), len(added))
    untouched = [row for row in after if "source" not in row]
    assert all(row["colour"] == "red" for row in untouched)


@pytest.mark.slow
def test_with_truth_probabilities_are_calibrated_and_checked(tmp_path):
    cases = scenes(5, 30)
    sets = [c.planted.labels for c in cases], [c.truth for c in cases]
    labels, truth = (written(tmp_path / f"{k}.json", cases, own) for k, own in enumerate(sets))
    out = audit.audit(labels, results(tmp_path / "r.json", cases), tmp_path / "out", truth=truth)
    assert out.calibrated
    assert out.check is not None
    assert out.check.calibration_error is not None
    assert out.check.calibration_error < 0.08
    assert out.check.average_precision is not None
    assert out.check.prevalence is not None
    assert out.check.average_precision > out.check.prevalence + 0.2
    assert out.check.f1_after is not None
    assert out.check.f1_after >= out.check.f1_before - 0.01
    assert {row["calibrated"] for row in table(tmp_path / "out" / "instances.csv")} == {"yes"}
    assert "calibrated" in (tmp_path / "out" / "audit.html").read_text()


def test_one_image_of_truth_is_too_little_and_said_so(files, tmp_path):
    labels, seen, truth, _ = files
    content = json.loads(Path(truth).read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
    content["images"].append({"id": 77, "file_name": "nobody.png"})
    Path(truth).write_text(json.dumps(content))
    out = audit.audit(labels, seen, tmp_path / "out", truth=truth)
    assert not out.calibrated
    assert "too little" in out.notes[0]
    assert out.check is not None
    assert out.check.images == 1
    assert [item.item for item in out.set_aside.first] == ["nobody.png"]


def test_bad_rows_are_set_aside_and_counted(files, tmp_path, capsys):
    labels, seen, *_ = files
    content = json.loads(Path(labels).read_text())
    good = content["annotations"][0]
    content["annotations"] += [
        {**good, "id": 901, "bbox": [9000, 9000, 5, 5]},
        {**good, "id": 902, "bbox": [float("nan"), 1, 5, 5]},
        {**good, "id": 903, "category_id": 1234},
        {**good, "id": 904, "image_id": 1234},
        "nonsense",
    ]
    Path(labels).write_text(json.dumps(content))
    found = json.loads(Path(seen).read_text())
    found += [{k: v for k, v in found[0].items() if k != "score"}, {**found[0], "score": 7}]
    Path(seen).write_text(json.dumps(found))
    assert cli.main(["audit", labels, seen, "--out", str(tmp_path / "out")]) == 0
    aside = table(tmp_path / "out" / "set_aside.csv")
    assert len(aside) == 7
    assert "7 rows or images set aside" in capsys.readouterr().out
    words = " ".join(row["reason"] for row in aside)
    for reason in (
        "outside the picture",
        "nan",
        "category_id 1234",
        "image_id 1234",
        "not an object",
        "score",
    ):
        assert reason in words
    assert "Set aside (7)" in (tmp_path / "out" / "audit.html").read_text()
    ids = {
        row["id"] for row in json.loads((tmp_path / "out" / "audited.coco.json").read_text())["annotations"]
    }
    assert not ids & {901, 902, 903, 904}


def test_pictures_are_drawn_and_those_that_are_not_there_are_set_aside(files, tmp_path):
    labels, seen, *_ = files
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    grey = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(grey).save(tmp_path / "pictures" / "deep" / f"{i}.png")
    Image.fromarray(grey[:100]).save(tmp_path / "pictures" / "3.png")
    chosen = audit.Settings(pictures=1)
    out = audit.audit(labels, seen, tmp_path / "out", str(tmp_path / "pictures"), settings=chosen)
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert all(f"{word}: " in page for word in ("crowd", "model", "fix"))  # as the legend names them
    assert "corrected" not in page  # without a truth everything is only proposed
    assert "http" not in page.replace("http-equiv", "")
    reasons = {item.reason for item in out.set_aside.first}
    assert reasons <= {
        "not drawn: the label file names it, the folder does not hold it",
        f"not drawn: the label file says {SIDE} x {SIDE} px, the picture has {SIDE} x 100",
    }


def test_images_that_no_prediction_names_can_be_left_out(files, tmp_path):
    labels, seen, *_ = files
    Path(seen).write_text(json.dumps([r for r in json.loads(Path(seen).read_text()) if r["image_id"] == 1]))
    flooded = audit.audit(labels, seen, tmp_path / "all")
    assert flooded.instances >= flooded.labels
    assert "7 of 8 images have no prediction" in flooded.notes[1]
    spared = audit.audit(labels, seen, tmp_path / "some", settings=audit.Settings(skip_unpredicted=True))
    assert spared.labels == flooded.labels
    assert {row["image"] for row in table(tmp_path / "some" / "instances.csv")} == {"0.png"}
    judged = [row["judged"] for row in table(tmp_path / "some" / "images.csv")]
    assert (judged.count("yes"), judged.count("no")) == (1, 7)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "The first fault: results\\[0\\].*score"),  # labels given as predictions
        ([{"image_id": 99, "category_id": 5, "bbox": [1, 1, 9, 9], "score": 1}], "unknown image_id 99"),
        ([], "no prediction that can be used. Give a detector's results"),
    ],
)
def test_without_any_usable_prediction_nothing_is_judged(files, tmp_path, rows, words):
    labels, seen, *_ = files
    Path(seen).write_text(Path(labels).read_text() if rows is None else json.dumps(rows))
    with pytest.raises(DataError, match=words) as caught:
        audit.audit(labels, seen, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_input_leaves_no_folder(files, tmp_path, missing):
    given = [*files[:3]]
    given[missing] = str(tmp_path / "nowhere.json")
    with pytest.raises(LabelError, match="cannot be opened"):
        audit.audit(given[0], given[1], tmp_path / "out", truth=given[2])
    assert not (tmp_path / "out").exists()


def test_names_cannot_break_a_file_or_the_page(tmp_path):
    cases = scenes(1, 1)
    labels = Path(written(tmp_path / "l.json", cases, [cases[0].planted.labels]))
    content = json.loads(labels.read_text())
    content["images"][0]["file_name"] = 'a,"b"\n<script>x</script>\ud800.png'
    labels.write_text(json.dumps(content))
    out = audit.audit(str(labels), results(tmp_path / "r.json", cases), tmp_path / "out")
    assert len(table(tmp_path / "out" / "instances.csv")) == out.instances
    assert "<script>" not in (tmp_path / "out" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("more", "code"),
    [(["--precision", "2"], 2), (["--images", "nowhere"], 3), (["--truth", "nowhere.json"], 3), ([], 0)],
)
def test_exit_codes(files, tmp_path, more, code, capsys):
    labels, seen, *_ = files
    assert cli.main(["audit", labels, seen, "--out", str(tmp_path / "out"), *more]) == code
    assert ("error:" in capsys.readouterr().err) == bool(code)


def test_a_folder_that_is_a_file_and_settings_out_of_range_are_told(files, tmp_path):
    labels, seen, *_ = files
    with pytest.raises(DataError, match="cannot be written"):
        audit.audit(labels, seen, Path(labels))
    with pytest.raises(ConfigError, match="2 fault"):
        audit.Settings(confident=0, top=-1)


def doubtful(kind: str) -> tuple[sources.Case, findings.Finding]:
    """A label that is graded ``kind`` with certainty, while no model shows how to mend it."""
    box = Labels(np.array([[20.0, 20, 60, 60]]), np.array([0]), ("l1",))
    seen = Predictions(np.array([[100.0, 100, 140, 140]]), np.array([0]), np.array([0.9]))
    evidence = Evidence(box, None, None, seen, SIDE, SIDE)
    found = features(evidence)
    posterior = np.eye(len(GRADES))[[GRADES.index(kind)]]
    said = verdicts(evidence, found, posterior, np.zeros(len(found.proposed)), True)
    case = sources.Case(1, ImageEntry("a.png", SIDE, SIDE), [{}], evidence, True)
    return case, findings.findings(case, said)[0]


@pytest.mark.parametrize("kind", ["shifted", "merged", "mislabelled"])
def test_a_doubt_without_a_fix_says_so_and_draws_none(kind):
    case, finding = doubtful(kind)
    assert (finding.grade, finding.fix) == (kind, "check")
    assert ", but the model" in finding.reason
    around = np.array([0, 0, SIDE, SIDE], dtype=float)
    layers = pictures._layers(case, [finding], around)
    assert not layers.changes
    assert layers.verdicts is not None
    assert layers.verdicts.label.tolist() == [0]  # its word stands beside the label


def test_a_duplicate_names_the_other_label_only_where_there_is_one():
    _, finding = doubtful("duplicate")
    assert finding.reason == "it seems to show an object twice, but no other label overlaps it"


def test_a_cut_out_at_the_border_is_as_wide_as_any():
    window = pictures._window(np.array([2.0, 50]), np.array([64.0, 64]), 200, 100)
    assert window.tolist() == [0, 18, 64, 82]
    assert pictures._window(np.array([2.0, 50]), np.array([300.0, 300]), 200, 100).tolist() == [
        0,
        0,
        200,
        100,
    ]


def wide(n: int, seed: int = 0) -> Evidence:
    """One image of ``n`` objects side by side, most labelled, some wrongly."""
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(n)))
    low = np.stack(np.meshgrid(np.arange(across), np.arange(across)), axis=-1).reshape(-1, 2)[:n] * 30.0
    boxes = np.concatenate([low, low + rng.uniform(12, 22, (n, 2))], axis=1)
    seen = Predictions(boxes, np.zeros(n, int), rng.uniform(0.3, 1, n))
    given = boxes[rng.random(n) < 0.8] + rng.normal(0, 2, (1, 4))
    return Evidence(Labels(given, np.zeros(len(given), int)), None, None, seen, 30 * across, 30 * across)


def test_a_crowded_image_is_judged_in_parts_as_it_is_in_one():
    case = wide(600)
    whole, parted = grade(case), judging.judge(case, crowded=200)
    n = len(case.labels)
    assert parted.label[:n].tolist() == list(range(n))
    assert (parted.grade[:n] == whole.grade[:n]).mean() > 0.98
    assert np.allclose(parted.box[:n], whole.box[:n], atol=1e-6)
    assert sorted(parted.prediction[n:].tolist()) == sorted(whole.prediction[n:].tolist())
    assert len(parted.posterior) == len(parted)


@pytest.mark.parametrize("boxes", [np.tile([5.0, 5, 9, 9], (300, 1)), wide(300).labels.boxes])
def test_parts_hold_every_box_once_and_never_many(boxes):
    seen = Predictions(boxes[::-1], np.zeros(len(boxes), int), np.linspace(0, 1, len(boxes)))
    parts = list(judging.parts(boxes, seen, 50))
    own = np.concatenate([p.labels[: p.own_labels] for p in parts])
    assert sorted(own.tolist()) == list(range(len(boxes)))
    own = np.concatenate([p.predictions[: p.own_predictions] for p in parts])
    assert sorted(own.tolist()) == list(range(len(boxes)))
    assert max(len(p.labels) + len(p.predictions) for p in parts) <= 4 * 50


def test_pieces_to_learn_from_hold_every_box_and_object_once():
    case = wide(500)
    truth = Labels(case.crowd.boxes, case.crowd.categories)
    pieces = judging.pieces(case, truth, crowded=200)
    assert len(pieces) > 1
    assert sum(len(e.labels) for e, _ in pieces) == len(case.labels)
    assert sum(len(t) for _, t in pieces) == len(truth)


def test_work_grows_with_the_boxes_and_not_with_their_square(monkeypatch):
    """Counted in pairs of boxes that are compared, within one image of more and more boxes."""
    pairs = [0]
    original = intersection

    def counted(a, b):
        pairs[0] += len(a) * len(b)
        return original(a, b)

    for module in ("emclean.boxes", "emclean.science.grading.features"):
        monkeypatch.setattr(sys.modules[module], "intersection", counted)
    work = []
    for n in (400, 1600):
        pairs[0] = 0
        judging.judge(wide(n), crowded=200)
        work.append(pairs[0])
    assert work[1] < 6 * work[0]  # four times the boxes; their square would be sixteen


def test_every_image_is_judged_once_whatever_their_number(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(judging, "grade", lambda e, g=None: calls.append(len(e.labels)) or grade(e, g))
    for n in (3, 6):
        cases = scenes(2, n)
        calls.clear()
        labels = written(tmp_path / "l.json", cases, [c.planted.labels for c in cases])
        audit.audit(labels, results(tmp_path / "r.json", cases), tmp_path / "out")
        assert calls == [len(c.planted.labels) for c in cases]


def test_a_long_table_is_sorted_in_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RUN", 7)
    monkeypatch.setattr(tables, "OPEN", 3)
    values = np.random.default_rng(0).integers(0, 50, 200) / 50
    ranked = tables.Ranked(tmp_path)
    for i, value in enumerate(values):
        ranked.add(value, (value, f"row {i}\nof it"))
    ranked.write(tmp_path / "t.csv", ("value", "name"))
    found = table(tmp_path / "t.csv")
    order = np.argsort(-values, kind="stable")
    assert [row["name"] for row in found] == [f"row {i} of it" for i in order]
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_average_precision_of_hand_worked_rankings():
    score, wrong = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    assert average_precision(score, wrong, 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(score, wrong, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert average_precision(np.ones(4), np.array([True, False, False, True]), 2) == pytest.approx(0.5)
    assert calibration_error(np.array([0.25, 0.25, 1.0]), np.array([False, True, True])) == pytest.approx(
        0.5 / 3
    )


def test_clean_labels_are_left_in_peace(tmp_path):
    cases = scenes(7, 4, NoiseRates())
    labels = written(tmp_path / "l.json", cases, [c.truth for c in cases])
    clean = audit.audit(labels, results(tmp_path / "r.json", cases), tmp_path / "a")
    noisy = written(tmp_path / "n.json", cases, [c.planted.labels.take([]) for c in cases])
    assert clean.likely["duplicate"] == 0
    bare = audit.audit(noisy, str(tmp_path / "r.json"), tmp_path / "b")
    assert bare.labels == 0
    assert bare.expected["missed"] > 4 * clean.expected["missed"]
    assert set(clean.likely) == set(GRADES[1:])


def test_folds_are_of_like_size(files, known):
    from emclean.audit.sources import Aside, Sources

    labels, seen, truth, cases = files
    with closing(Aside()) as aside, Sources(labels, seen, truth, aside) as sources:
        made = graders.graders(sources, audit.Settings())
    sizes = np.bincount(list(made.fold_of.values()))
    assert sizes.sum() == len(cases)
    assert sizes.max() - sizes.min() <= 1


def test_an_audit_without_truth_and_pictures_loads_nothing_heavy(files, tmp_path):
    labels, seen, *_ = files
    heavy = "{'torch', 'ray', 'sklearn', 'matplotlib', 'pandas', 'pyarrow', 'mlflow', 'pydantic'}"
    command = f"cli.main(['audit', {labels!r}, {seen!r}, '--out', {str(tmp_path / 'out')!r}])"
    code = (
        f"import sys; from emclean import cli; code = {command}; print(code, *({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
