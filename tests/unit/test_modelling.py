from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from emclean.loop import modelling
from emclean.loop.cleaning import out_of_sample
from emclean.loop.modelling import choose_scales, predict
from emclean.types import Predictions


def squares(*sides):
    return np.array([[0.0, 0.0, side, side] for side in sides])


@pytest.mark.parametrize(
    ("sides", "scales"),
    [
        ((), (1.0,)),
        ((30.0, 32.0, 40.0), (1.0,)),
        ((100.0, 110.0, 120.0), (0.5,)),
        ((60.0, 64.0, 66.0), (1.0,)),
        ((300.0, 310.0), (0.125,)),
        ((12.0, 16.0, 20.0), (1.0,)),
        ((8.0, 10.0, 20.0), (2.0,)),
        ((15.0, 30.0, 35.0, 200.0), (1.0, 0.5)),
        ((2.0, 3.0), (2.0,)),
    ],
)
def test_scales_bring_the_typical_box_to_the_size_the_detector_sees_best(sides, scales):
    assert choose_scales(squares(*sides).reshape(-1, 4)) == scales


class TwoFaced:
    """A computer whose models see one object, and another one where they look mirrored, too."""

    def predict_all(self, weights, pictures, progress, flips=False):
        seen = [5.0, 5, 9, 9] if flips else [0.0, 0, 4, 4]
        return [Predictions([seen], [0], [0.5]) for _ in pictures]


def searching(folder, compute):
    """A job that searches with a computer, and its weights."""
    (folder / "weights").write_bytes(b"any")
    console = SimpleNamespace(stage=lambda what: nullcontext(lambda done, total: None))
    parts = SimpleNamespace(compute=compute, console=console)
    job = SimpleNamespace(workspace=folder, parts=parts, picture=lambda image_id: f"{image_id}.npy")
    return job, str(folder / "weights")


def test_what_grades_labels_is_searched_mirrored_and_kept_apart(tmp_path):
    job, weights = searching(tmp_path, TwoFaced())
    for _ in range(2):  # computed, then read
        assert predict(job, weights, ["a"])["a"].boxes.tolist() == [[0, 0, 4, 4]]
        assert out_of_sample(job, [weights], {"a": 0})["a"].boxes.tolist() == [[5, 5, 9, 9]]


def test_what_another_search_found_is_not_used_again(tmp_path, monkeypatch):
    job, weights = searching(tmp_path, TwoFaced())
    predict(job, weights, ["a"])
    seen = Predictions([[7.0, 7, 9, 9]], [0], [0.5])
    job.parts.compute = SimpleNamespace(predict_all=lambda *_: [seen])
    assert predict(job, weights, ["a"])["a"].boxes.tolist() == [[0, 0, 4, 4]]
    monkeypatch.setattr(modelling, "SEARCH", modelling.SEARCH + 1)
    assert predict(job, weights, ["a"])["a"].boxes.tolist() == [[7, 7, 9, 9]]
