import numpy as np

from emclean.science.scores import score_knots
from emclean.types import Labels, Predictions


def _image(rng, n=40):
    """A row of boxes; those of high score lie on an object, the others beside it."""
    corners = np.array([[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(n)])
    scores = rng.random(n)
    real = rng.random(n) < scores**2
    truth = Labels(corners[real], np.zeros(int(real.sum()), np.int64))
    return truth, Predictions(corners, np.zeros(n, np.int64), scores)


def test_the_knots_say_how_often_a_score_is_right() -> None:
    rng = np.random.default_rng(0)
    truths, found = zip(*(_image(rng) for _ in range(50)), strict=True)
    knots = np.array(score_knots(truths, found))
    assert (np.diff(knots[:, 0]) >= 0).all()
    assert (np.diff(knots[:, 1]) >= 0).all()
    at = np.interp([0.3, 0.6, 0.9], knots[:, 0], knots[:, 1])
    np.testing.assert_allclose(at, [0.09, 0.36, 0.81], atol=0.1)


def test_little_teaches_nothing() -> None:
    truth, found = _image(np.random.default_rng(1), n=10)
    assert score_knots([truth], [found]) == []
    assert score_knots([], []) == []
