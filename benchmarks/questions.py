"""What to ask the expert: the labels' F1 after the same minutes, by way of choosing the questions.

    EMCLEAN_DATA=DIR python -m benchmarks.questions --cache workspace/error-finding

Sets, labels and predictions are those of ``benchmarks.error_finding``. The truth of ``--known`` images drawn
at random teaches the grader; then each way of choosing spends ``--shares`` of the minutes that labelling
everything would cost, in one round. The expert makes no slips. The labels that nobody was asked about are
taken in their likelier version, as for training. No detector is trained: what is compared is the labels.

Ways: the strategies of the main job; ``gain, images`` asks about whole images only, ``reviews`` about
doubtful instances only, and ``gain, not learnt`` mixes both without having learnt what an answer mends.
Printed: mean over seeds and standard deviation; images asked as a whole + reviewed.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cases import Cache, Case, arguments, bccd_cases, data_folder, emps_cases
from emclean.science import calibration, doubt, questions
from emclean.science.correction import LIKELY, correct
from emclean.science.cost import CostModel
from emclean.science.evaluation import label_quality
from emclean.science.grading import Evidence, grade
from emclean.science.selection import STRATEGIES, Pool, joined, subset
from emclean.types import Labels, Verdicts

COSTS = CostModel()


@dataclass(frozen=True)
class State:
    """One case with its known images: what is judged of the others, and what answers brought."""

    case: Case
    known: tuple[int, ...]
    rest: tuple[int, ...]
    verdicts: Mapping[int, Verdicts]
    learnt: doubt.Experience

    @property
    def evidences(self) -> list[Evidence]:
        """Of the images that may be asked about."""
        return [self.case.evidences[i] for i in self.rest]


def taught(case: Case, n: int) -> State:
    """The state after the truth of ``n`` random images has taught the grader."""
    order = case.drawn(len(case.truths))
    known, rest = order[:n], sorted(order[n:])
    evidences, truths = [case.evidences[i] for i in known], [case.truths[i] for i in known]
    fitted = calibration.fit(evidences, truths, np.random.default_rng([case.seed, n]))
    verdicts = {i: grade(case.evidences[i], fitted) for i in rest}
    learnt = doubt.experience([e.labels for e in evidences], fitted.held_out, truths, COSTS)
    return State(case, tuple(known), tuple(rest), verdicts, learnt)


def pools(state: State, strategy: str, learnt: doubt.Experience) -> tuple[Pool, Pool]:
    """The questions about whole images, and the reviews."""
    said = [state.verdicts[i] for i in state.rest]
    prices = questions.Prices(COSTS, learnt)
    whole = questions.whole_images([str(i) for i in state.rest], state.evidences, said, prices)
    return questions.ranked_by(strategy, whole, state.evidences), questions.reviews(whole, said, prices)


def by_strategy(strategy: str) -> Callable[[State], tuple[str, Pool]]:
    """Whole images by a strategy of the main job."""
    return lambda state: (strategy, pools(state, strategy, state.learnt)[0])


def mixed(state: State) -> tuple[str, Pool]:
    """Both kinds by what each is expected to mend."""
    return "gain", joined(*pools(state, "gain", state.learnt))


def not_learnt(state: State) -> tuple[str, Pool]:
    """Both kinds, as if every expected error were mended by either."""
    return "gain", joined(*pools(state, "gain", doubt.Experience()))


def only_reviews(state: State) -> tuple[str, Pool]:
    """Doubtful instances alone."""
    return "gain", pools(state, "gain", state.learnt)[1]


WAYS: Mapping[str, Callable[[State], tuple[str, Pool]]] = {
    **{name: by_strategy(name) for name in ("random", "uncertainty", "objectlab", "loss", "discrepancy")},
    "gain, images": by_strategy("gain"),
    "reviews": only_reviews,
    "gain, not learnt": not_learnt,
    "gain": mixed,
}


@dataclass(frozen=True)
class Outcome:
    """What an answer leaves: the labels of the image, and the seconds that it took."""

    labels: Labels
    seconds: float


def outcome(state: State, i: int, review: bool) -> Outcome:
    """What asking about image ``i``, as a whole or in a review, would bring."""
    said, truth = state.verdicts[i], state.case.truths[i]
    if not review:
        return Outcome(truth, doubt.whole_image(said, truth, COSTS))
    offer = doubt.review(said, COSTS)
    rows = np.zeros(0, np.int64) if offer is None else offer.rows
    return Outcome(*doubt.reviewed(state.case.evidences[i].labels, said, truth, rows, COSTS))


def asked(state: State, way: str, shares: Sequence[float]) -> list[tuple[float, int, int]]:
    """For each share of the minutes: label F1 of everything, and how often each kind was asked.

    The plan is the largest whose answers really take no longer, so that nobody gains by expecting too little.
    """
    strategy, pool = WAYS[way](state)
    truths = state.case.truths
    full = 60 * COSTS.full(len(truths), sum(map(len, truths)))
    known: dict[tuple[int, bool], Outcome] = {}

    def plan(minutes: float) -> dict[int, bool]:
        rng = np.random.default_rng([state.case.seed, 7])
        chosen = subset(pool, STRATEGIES[strategy](pool, minutes, rng))
        return {int(i): bool(r) for i, r in zip(chosen.image_ids, chosen.review, strict=True)}

    def seconds(questions: Mapping[int, bool]) -> float:
        for key in questions.items():
            known[key] = known.get(key) or outcome(state, *key)
        return sum(known[key].seconds for key in questions.items())

    found = []
    for share in shares:
        low, high = 0.0, 2.0 * share * full / 60
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if seconds(plan(middle)) <= share * full else (low, middle)
        best = plan(low)
        seconds(best)
        kinds = list(best.values())
        found.append(
            (f1_of(state, {key[0]: known[key] for key in best.items()}), kinds.count(False), sum(kinds))
        )
    return found


def f1_of(state: State, answered: Mapping[int, Outcome]) -> float:
    """Label F1 of all images: known, answered, or in their likelier version."""
    case, labels = state.case, {}
    for i in state.rest:
        told = answered.get(i)
        said = told or Outcome(correct(case.evidences[i].labels, state.verdicts[i], LIKELY).labels, 0)
        labels[i] = said.labels
    labels |= {i: case.truths[i] for i in state.known}
    return label_quality(list(case.truths), [labels[i] for i in range(len(case.truths))]).f1


def show(title: str, states: Sequence[State], shares: Sequence[float]) -> None:
    """One table: a row for each way, a pair of columns for each share."""
    before = [asked(state, "random", [0.0])[0][0] for state in states]
    crowd = [label_quality(list(s.case.truths), [e.labels for e in s.case.evidences]).f1 for s in states]
    learnt = np.array([list(vars(s.learnt).values()) for s in states])
    told = ", ".join(
        f"{m:.2f} ({sd:.2f})" for m, sd in zip(learnt.mean(0), learnt.std(0, ddof=1), strict=True)
    )
    print(f"\n{title}: labels as they came {np.mean(crowd):.3f}, before any question {np.mean(before):.3f}")
    print(f"learnt: {', '.join(vars(states[0].learnt))}: {told}")
    print("| way | " + " | ".join(f"{share:.0%} of the minutes" for share in shares) + " |")
    print("|---|" + "---|" * len(shares))
    for way in WAYS:
        found = np.array([asked(state, way, shares) for state in states])  # [seeds, shares, 3]
        cells = [
            f"{f1.mean():.3f} ({f1.std(ddof=1):.3f}); {whole.mean():.0f} + {part.mean():.0f}"
            for f1, whole, part in found.transpose(1, 2, 0)
        ]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    """Judge, ask, print."""
    parser = arguments(__doc__, "crowd,mixed", "0,1,2,3,4")
    parser.add_argument("--known", type=int, default=10, help="images whose truth teaches the grader")
    parser.add_argument("--shares", default="0.05,0.1", help="minutes to spend, of those for everything")
    given = parser.parse_args()
    data = data_folder()
    began, cache = time.process_time(), Cache(given.cache)
    seeds, shares = [int(s) for s in given.seeds.split(",")], [float(s) for s in given.shares.split(",")]
    for noise in given.noise.split(","):
        cases = emps_cases(data, cache, noise, seeds)
        show(f"emps, planted: {noise}", [taught(case, given.known) for case in cases], shares)
    if given.steps:
        cases = bccd_cases(data, cache, given.steps, seeds)
        show("bccd, real errors", [taught(case, given.known) for case in cases], shares)
    print(
        f"\nseeds {given.seeds}, {given.known} images known, {time.process_time() - began:.0f} s of one core"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
