"""What benchmarks keep of finished cells gives the same figures again."""

import numpy as np
import pytest

from benchmarks.budget_curves import Cell
from benchmarks.curve_tables import packed, unpacked
from benchmarks.kept import Kept, digest_of_facts
from emclean.science.evaluation import detection, resampled_ap50
from emclean.types import Labels, Predictions


def test_a_kept_detection_gives_the_same_bootstrap() -> None:
    rng = np.random.default_rng(3)
    truths, found = [], []
    for _ in range(5):
        corner = rng.uniform(0, 80, (7, 2))
        boxes = np.concatenate([corner, corner + 15], axis=1)
        category = rng.integers(0, 2, 7)
        truths.append(Labels(boxes, category))
        found.append(Predictions(boxes + rng.normal(0, 3, boxes.shape), category, rng.uniform(0, 1, 7)))
    whole = detection(truths, found, 2)
    again = unpacked(packed(whole))
    weights = rng.multinomial(5, np.full(5, 0.2), size=40).astype(np.float64)
    assert again.ap50 == whole.ap50
    np.testing.assert_allclose(resampled_ap50(again, weights), resampled_ap50(whole, weights))
    assert np.ptp(resampled_ap50(whole, weights)) > 0


def test_kept_rows_are_read_again_in_one_order(tmp_path) -> None:
    kept = Kept(tmp_path / "below" / "rows.jsonl")
    assert kept.read() == {}
    first, second = digest_of_facts(["a"]), digest_of_facts(["b"])
    kept.add([{"digest": second, "value": 2}])
    kept.add([{"digest": first, "value": 1}, {"digest": second, "value": 3}])
    assert {row["value"] for row in kept.read().values()} == {1, 3}
    keys = [line.split('"digest":"')[1][:24] for line in kept.file.read_text().splitlines()]
    assert keys == sorted(keys)
    assert list(kept.file.parent.iterdir()) == [kept.file]


def test_digests_follow_what_was_asked() -> None:
    assert digest_of_facts({"a": 1, "b": 2}) == digest_of_facts({"b": 2, "a": 1})
    assert digest_of_facts({"a": 1}) != digest_of_facts({"a": 2})


@pytest.mark.parametrize("method", ["expert_only", "random"])
def test_another_method_is_another_cell(method: str) -> None:
    ours = Cell("emps", 0, "ours", 0.2)
    assert ours.digest([]) == Cell("emps", 0, "ours", 0.2).digest([])
    assert ours.digest([]) != Cell("emps", 0, method, 0.2).digest([])
    assert ours.digest([]) != ours.digest(["detector.final_steps=1"])
