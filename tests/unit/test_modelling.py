import numpy as np
import pytest

from emclean.loop.modelling import choose_scales


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
