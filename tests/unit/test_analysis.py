"""An analysis of small micrographs in this process: each particle once, nothing done twice, honest tables."""

import csv
import json
import shutil
from dataclasses import replace

import analysis_toys
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from emclean.config import load_analysis
from emclean.errors import ConfigError, DataError
from emclean.imaging import simulate, windows
from emclean.imaging.segmentation import Levels, Settings
from emclean.loop.analysis import gathering, opening, particles, results, running
from emclean.loop.analysis import segmenters as network_of
from emclean.loop.analysis.looking import shown
from emclean.loop.analysis.pieces import Measured, Micrograph, Piece, pieces_of
from emclean.loop.console import Console
from emclean.stores.fakes import FolderRegistry, InMemoryTracker

pytestmark = pytest.mark.slow  # each test trains or searches pictures

LEVELS = Levels(0.0, 255.0, 60.0, 40.0, 900.0)
PICTURE = Micrograph("s/a.tif", "/s/a.tif", "0123", "s")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two untrained classifiers: one of hands, one of usable poses."""
    folder = tmp_path_factory.mktemp("weights")
    return [analysis_toys.classifier(folder, *which) for which in (("hand", True), ("usable", False))]


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory):
    """Two samples of two small micrographs."""
    recipe = simulate.Recipe(zoom=0.35, density=24)
    return simulate.write_micrographs(tmp_path_factory.mktemp("m"), 2, 260, 3, recipe, (0.0, 0.5))


@pytest.fixture
def analyse(tmp_path, weights, micrographs, monkeypatch):
    """Run an analysis with these settings; its summary."""
    tracker = InMemoryTracker()
    registry = FolderRegistry(tmp_path / "registry")
    monkeypatch.setattr(opening, "MlflowTracker", lambda *_: tracker)
    monkeypatch.setattr(opening, "MlflowRegistry", lambda *_: registry)

    def run(*more):
        given = [
            f"workspace={tmp_path / 'w'}",
            "run=a",
            "compute=inline",
            f"data.images={micrographs.images}",
            f"classifier.weights={weights[0]}",
            f"classifier.usable_weights={weights[1]}",
            "classifier.usable_from=0.1",
            "classifier.confusion=[40, 2, 3, 45]",
            *more,
        ]
        with opening.opened(load_analysis(None, given), Console()) as analysis:
            outcome = running.run(analysis)
        return json.loads(outcome.summary.read_text())

    run.tracker, run.registry, run.folder = tracker, registry, tmp_path / "w" / "runs" / "a"
    return run


@pytest.fixture
def _no_page(monkeypatch):
    """Drawing the page takes longer than all the rest."""
    monkeypatch.setattr(results.analysis_page, "render", lambda data: "")


@pytest.mark.usefixtures("_no_page")
def test_windows_of_any_size_give_the_same_particles_and_none_is_done_twice(analyse):
    first = analyse()
    assert first["counts"]["particles"] > 20
    assert first["windows"] == {"all": 4, "done_now": 4}
    particles_first = pq.read_table(analyse.folder / "particles.parquet").drop_columns(["particle"])
    again = analyse()
    assert again["windows"] == {"all": 4, "done_now": 0}
    assert again["samples"] == first["samples"]
    assert again["pixels_per_second"] is None
    small = analyse("segmentation.window=130")
    assert small["windows"] == {"all": 16, "done_now": 16}
    assert small["samples"] == first["samples"]
    order = [("image", "ascending"), ("x", "ascending")]
    particles_small = pq.read_table(analyse.folder / "particles.parquet").drop_columns(["particle"])
    left, right = (table.sort_by(order).select(["image", "x", "y", "set_aside", "area_px"])
                   for table in (particles_first, particles_small))  # fmt: skip
    assert left.equals(right)


@pytest.mark.usefixtures("_no_page")
def test_the_tables_agree_with_the_summary_and_with_one_another(analyse):
    found = analyse()
    table = pq.read_table(analyse.folder / "particles.parquet").to_pylist()
    with (analyse.folder / "particles.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table)
    assert [row["image"] for row in rows] == [row["image"] for row in table]
    for sample in found["samples"]:
        own = [row for row in table if row["sample"] == sample["sample"]]
        usable = [row for row in own if not row["set_aside"]]
        assert len(usable) == sample["particles"]
        assert sum(row["hand"] == "left" for row in usable) == sample["left"]
        assert sum(row["set_aside"] == "border" for row in own) == sample["border"]
        assert sample["naive"] == pytest.approx(sample["left"] / sample["particles"])
        assert sample["low"] <= sample["corrected"] <= sample["high"]
    lengths = [row["length_nm"] for row in table if not row["set_aside"]]
    assert 40 < np.median(lengths) < 110
    assert all(row["length_nm"] == pytest.approx(2 * row["length_px"]) for row in table)
    with (analyse.folder / "population.csv").open() as file:
        assert [row["level"] for row in csv.DictReader(file)] == ["sample"] * 2 + ["image"] * 4


def test_the_page_stands_alone_and_mlflow_has_the_figures(analyse):
    found = analyse()
    page = (analyse.folder / "report.html").read_text()
    assert "http://" not in page
    assert "<script" not in page
    assert page.count("data:image/png;base64,") >= 8
    run = next(iter(analyse.tracker.runs.values()))
    assert run.status == "FINISHED"
    assert "corrected.sample-00" in str(run.metrics)
    assert found["confusion"]["symmetric"] is True


@pytest.mark.usefixtures("_no_page")
def test_pictures_that_are_added_cost_their_own_windows_and_bad_ones_are_set_aside(
    analyse, micrographs, tmp_path
):
    own = tmp_path / "own"
    shutil.copytree(micrographs.images, own)
    first = analyse(f"data.images={own}")
    (own / "sample-00" / "broken.tif").write_bytes(b"II*\x00 no picture")
    shutil.copy(own / "sample-00" / "sample-00-000.tif", own / "again.tif")
    made = simulate.scene(9, (200, 200), simulate.Recipe(zoom=0.35, density=24)).whole()[0]
    tifffile.imwrite(own / "sample-01" / "new.tif", made)
    second = analyse(f"data.images={own}")
    assert second["windows"] == {"all": 5, "done_now": 1}
    assert {item["item"] for item in second["set_aside"]} >= {"sample-00/broken.tif"}
    assert sum("same picture" in item["reason"] for item in second["set_aside"]) == 1
    assert second["counts"]["images"] == 5
    assert first["counts"]["images"] == 4
    sizes = pq.read_table(analyse.folder / "particles.parquet").to_pylist()
    assert {row["length_nm"] for row in sizes if row["image"] == "sample-01/new.tif"} == {None}
    bare = [row for row in sizes if row["image"] == "sample-01/new.tif" and not row["set_aside"]]
    assert second["counts"]["without_nm"] == len(bare) > 0
    lacking = {row["sample"]: row["without_nm"] for row in second["samples"]}
    assert lacking == {"all": 0, "sample-00": 0, "sample-01": len(bare)}


@pytest.mark.usefixtures("_no_page")
def test_samples_may_be_named_in_a_file(analyse, tmp_path):
    file = tmp_path / "samples.csv"
    file.write_text("image,sample\nsample-00/sample-00-000.tif,x\nsample-01/sample-01-001.tif,x\n")
    found = analyse(f"data.samples={file}")
    assert [(row["sample"], row["images"]) for row in found["samples"]] == [("x", 2)]
    assert sum("not named" in item["reason"] for item in found["set_aside"]) == 2


@pytest.mark.usefixtures("_no_page")
def test_without_clean_labels_nothing_is_corrected(analyse):
    found = analyse("classifier.confusion=null")
    assert found["confusion"] is None
    assert {row["corrected"] for row in found["samples"]} == {None}
    assert {row["high"] for row in found["samples"]} == {None}
    assert all("No clean labels" in row["note"] for row in found["samples"])


@pytest.mark.usefixtures("_no_page")
def test_a_folder_without_a_usable_picture_is_a_data_error(analyse, tmp_path):
    folder = tmp_path / "none"
    folder.mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        analyse(f"data.images={folder}")
    (folder / "a.tif").write_bytes(b"II*\x00")
    with pytest.raises(DataError, match=r"a\.tif"):
        analyse(f"data.images={folder}")
    assert next(iter(analyse.tracker.runs.values())).status == "FAILED"


def test_every_fault_of_a_configuration_in_one_report(tmp_path):
    given = [
        f"workspace={tmp_path}",
        "segmentation.methode=otsu",
        "classifier.size=30",
        "data.samples=nowhere.csv",
        "data.particles=nowhere",
        "classifier.confusion=[1, 2, 3, 4]",
    ]
    with pytest.raises(ConfigError) as caught:
        load_analysis(None, given)
    text = str(caught.value)
    for part in ("did you mean segmentation.method?", "classifier.size", "data.images", "data.labels",
                 "classifier.weights", "nowhere.csv"):  # fmt: skip
        assert part in text


def test_a_pieces_key_tells_what_decides_and_not_where_it_lies():
    measured = Measured((300, 400), 2.0, LEVELS)
    pieces = pieces_of(PICTURE, measured, 150, {"a": 1})
    assert [Piece.of(piece.text()) for piece in pieces] == pieces
    assert sum(piece.pixels for piece in pieces) == 300 * 400
    keys = {piece.key for piece in pieces}
    assert len(keys) == len(pieces) == 6
    moved = pieces_of(replace(PICTURE, uri="/elsewhere", name="b", sample="t"), measured, 150, {"a": 1})
    assert {piece.key for piece in moved} == keys
    other = Measured((300, 400), 2.0, replace(LEVELS, threshold=61.0))
    for changed in (pieces_of(PICTURE, measured, 150, {"a": 2}), pieces_of(PICTURE, other, 150, {"a": 1})):
        assert not keys & {piece.key for piece in changed}


def test_a_gallery_shows_the_surest_the_least_sure_and_the_unusable():
    p_left = np.array([0.9, 0.1, 0.5, 0.99, 0.01, 0.6, 0.2, 0.3])
    p_usable = np.array([1, 1, 1, 1, 1, 1, 0.2, 0.1])
    assert shown(p_usable, p_left, 0.5, n=1) == [2, 3, 4, 7]
    found = gathering.Gathered()
    table = {"p_left": p_left, "p_usable": p_usable, "picture": [b"%d" % i for i in range(8)]}
    found.show(table, 0.5)
    assert found.gallery["surest left"][0] == (0.99, b"3")
    assert found.gallery["surest right"][0] == (0.01, b"4")
    assert found.gallery["least sure"][0] == (0.5, b"2")
    assert [value for value, _ in found.gallery["unusable"]] == [0.1, 0.2]


def test_simulated_particles_are_labelled_by_what_lies_there():
    recipe = simulate.Recipe(zoom=0.5, density=20, left=0.5)
    found = list(particles.found_in(simulate.scene(3, (400, 400), recipe), Settings()))
    assert len(found) > 8
    assert {label for _, label in found} == {0, 1, 2}
    assert all(picture.shape == (128, 128) for picture, _ in found)


def test_simulated_particles_of_one_micrograph_train_or_test_together(monkeypatch):
    monkeypatch.setattr(particles, "FIELD", 400)
    made = particles.simulated(20, 0, Settings())
    assert len(made.labels) == len(made.groups) == 20
    _, sizes = np.unique(made.groups, return_counts=True)
    assert len(sizes) > 2
    assert sizes.max() > 2


def test_dark_particles_are_simulated_as_dark_ones():
    made = simulate.scene(3, (400, 400), simulate.Recipe(zoom=0.5, density=20, left=0.5))
    bright, dark = (list(particles.found_in(made, Settings(bright=flag))) for flag in (True, False))
    assert [label for _, label in bright] == [label for _, label in dark]
    assert all((one == other).all() for (one, _), (other, _) in zip(bright, dark, strict=True))


def test_settings_that_find_nothing_end_the_search_for_clean_particles(monkeypatch):
    monkeypatch.setattr(particles, "FIELD", 400)
    with pytest.raises(DataError, match="found 0 particles in 5 simulated micrographs"):
        particles.simulated(4, 0, Settings(cluster=0.001))


def test_the_users_particles_are_read_with_their_labels(tmp_path):
    written = simulate.write_particle_set(tmp_path, 12, 48, left=0.5, unusable=0.25)
    made = opening.labelled(str(written.images), str(written.labels), tmp_path / "home")
    assert made.pictures.shape == (12, 128, 128)
    with written.labels.open() as file:
        rows = list(csv.DictReader(file))
    counts = [sum(row["label"] == name for row in rows) for name in particles.NAMES]
    assert np.bincount(made.labels, minlength=3).tolist() == counts


@pytest.mark.usefixtures("_no_page")
def test_a_png_is_decoded_once_and_gives_what_a_tiff_gives(analyse, micrographs, tmp_path, monkeypatch):
    decoded, calls = windows.decoded, []
    monkeypatch.setattr(decoded, "SMALL", 0)
    decode = decoded._decode
    monkeypatch.setattr(decoded, "_decode", lambda uri, file: calls.append(uri) or decode(uri, file))
    first = analyse("segmentation.window=130")
    for file in sorted(micrographs.images.rglob("*.tif")):
        png = tmp_path / "png" / file.parent.name / f"{file.stem}.png"
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tifffile.imread(file)).save(png)
    found = analyse(f"data.images={tmp_path / 'png'}", "segmentation.window=130")
    assert found["windows"] == {"all": 16, "done_now": 16}
    assert found["counts"] | {"without_nm": 0} == first["counts"]  # a PNG does not tell the side of a pixel
    assert len(calls) == len(set(calls)) == 4
    assert not list((tmp_path / "w" / "analyses" / "decoded").glob("*.npy"))


@pytest.mark.usefixtures("_no_page")
def test_a_network_may_find_the_particles_and_may_find_none(analyse, tmp_path):
    file = analysis_toys.unet(tmp_path)
    found = analyse("segmentation.method=unet", f"segmentation.weights={file}")
    assert found["windows"] == {"all": 4, "done_now": 4}
    assert found["counts"]["particles"] == found["counts"]["border"] == 0
    assert {row["naive"] for row in found["samples"]} == {None}
    assert pq.read_table(analyse.folder / "particles.parquet").num_rows == 0


@pytest.mark.usefixtures("_no_page")
def test_a_network_is_trained_once_where_none_is_given(analyse, monkeypatch):
    monkeypatch.setattr(network_of, "FIELD", 192)
    monkeypatch.setattr(network_of, "SCENES", 1)
    settings = ("segmentation.method=unet", "segmentation.steps=1")
    analyse(*settings)
    weights = list((analyse.folder.parents[1] / "analyses" / "segmenters").glob("*/weights.safetensors"))
    assert len(weights) == 1
    before = weights[0].stat().st_mtime_ns
    again = analyse(*settings)
    assert again["windows"]["done_now"] == 0
    assert weights[0].stat().st_mtime_ns == before


@pytest.mark.usefixtures("_no_page")
def test_an_analysis_is_registered_once_for_all_that_decides_it(analyse):
    first, again = analyse(), analyse()
    assert (first["model_version"], first["promoted"], first["served"]) == ("1", True, None)
    assert again["model_version"] == "1"
    card = analyse.registry.card("1")
    assert (card["task"], card["name"], card["categories"]) == (
        "analysis",
        "emclean-analysis",
        ["left", "right"],
    )
    other = analyse("classifier.usable_from=0.2")
    assert (other["model_version"], other["promoted"]) == ("2", True)
    unknown = analyse("classifier.confusion=null")
    assert (unknown["model_version"], unknown["promoted"]) == ("3", False)
    assert analyse.registry.champion() == "2"
