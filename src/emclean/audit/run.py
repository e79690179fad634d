"""The audit: every image once, its labels judged, everything written as it goes."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from emclean.audit.checks import Checker
from emclean.audit.coco_out import CocoOut, Corrector, audited
from emclean.audit.findings import COLUMNS, LIKELY, Finding, findings
from emclean.audit.graders import Graders, Judge, graders
from emclean.audit.judging import judge
from emclean.audit.settings import Settings
from emclean.audit.sources import Aside, Case, Sources
from emclean.audit.summary import ImageRow, Summary, write_summary
from emclean.audit.tables import Ranked, Top, open_text, writer
from emclean.errors import DataError
from emclean.imaging.folders import Folder
from emclean.science.correction import correct
from emclean.stores.formats.coco import Key
from emclean.types import GRADES, NOISE_KINDS, Verdicts

INSTANCES, IMAGES, SET_ASIDE = "instances.csv", "images.csv", "set_aside.csv"
AUDITED, CORRECTED = "audited.coco.json", "corrected.coco.json"
PAGE, SUMMARY = "audit.html", "summary.json"

Say = Callable[[str], None]


def audit(
    labels: str,
    predictions: str,
    out: Path,
    images: str | None = None,
    truth: str | None = None,
    settings: Settings | None = None,
    say: Say | None = None,
) -> Summary:
    """Judge every label of a COCO file by predictions; write tables, COCO files and a page into ``out``.

    ``images`` is the folder of the pictures, of which the worst are drawn in the page; ``truth`` a COCO file
    of the right labels of some or all images.
    """
    chosen = settings if settings is not None else Settings()
    folder = None if images is None else Folder(images)  # before time is spent on reading
    _check_place(out)
    try:
        with ExitStack() as stack:
            aside = Aside()
            stack.callback(aside.close)
            sources = stack.enter_context(Sources(labels, predictions, truth, aside))
            out.mkdir(parents=True, exist_ok=True)  # not before: a wrong input leaves nothing behind
            aside.write_to(out / SET_ASIDE)
            work = _Audit(sources, out, chosen, aside, stack, say or _quiet)
            summary = work.run()
            work.draw(summary, folder)
            return summary
    except OSError as cause:
        raise DataError(
            f"cannot be written: {cause}.", str(out), "Check the rights and the space."
        ) from cause


def _check_place(out: Path) -> None:
    """Refuse a folder that cannot be made, before time is spent on reading."""
    known = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not known.is_dir() or not os.access(known, os.W_OK | os.X_OK):
        what = f"cannot be written: {known} is no folder that may be written to."
        raise DataError(what, str(out), "Give another folder.")


def _quiet(_: str) -> None:
    """Say nothing."""


class _Audit:
    """One audit under way."""

    def __init__(
        self, sources: Sources, out: Path, settings: Settings, aside: Aside, stack: ExitStack, say: Say
    ) -> None:
        self._sources, self._out, self._settings, self._aside, self._say = sources, out, settings, aside, say
        listing = sources.labels.listing
        self._names = listing.names
        ids: dict[str, Key] = {}
        for key, name in listing.categories.items():
            ids.setdefault(name, key)
        self._ids = [ids[name] for name in self._names]
        if sources.truths:
            say(f"calibrating with the truth of up to {len(sources.truths)} images")
        self._graders = graders(sources, settings)
        self._instances, self._top = Ranked(out), Top(settings.top)
        self._worst = {kind: Top(settings.pictures) for kind in NOISE_KINDS}
        stack.callback(self._instances.close)
        self._audited = CocoOut(out / AUDITED, sources.labels, "proposed")
        self._corrector: Corrector | None = None
        self._corrected: CocoOut | None = None
        if self._graders.whole.calibrated:
            self._corrected = CocoOut(out / CORRECTED, sources.labels)
            self._corrector = Corrector(self._corrected, self._ids, sources.labels.repeats.largest)
        else:
            (out / CORRECTED).unlink(missing_ok=True)  # that of an earlier audit would mislead
        self._checker = Checker()
        self._ranking: list[ImageRow] = []
        self._counts: Counter[str] = Counter()
        self._likely: Counter[str] = Counter()
        self._applied: Counter[str] = Counter()
        self._expected = np.zeros(len(GRADES))

    def run(self) -> Summary:
        """All images, then what needs all of them."""
        total = len(self._sources.entries)
        for done, case in enumerate(self._sources.cases(self._settings.confident), start=1):
            self._image(case)
            if done % 1000 == 0:
                self._say(f"{done} of {total} images")
        self._audited.close()
        if self._corrected is not None:
            self._corrected.close()
        self._instances.write(self._out / INSTANCES, COLUMNS)
        self._ranking.sort(key=lambda row: -row.expected)
        self._write_images()
        return self._summary()

    def draw(self, summary: Summary, folder: Any) -> None:
        """Write the page, with pictures where there is a folder of them."""
        from emclean.audit import page

        drawn = page.Drawn()
        if folder is not None:
            from emclean.audit.pictures import Painter

            self._say("drawing")
            painter = Painter(self._sources, folder, summary, self._settings, self._judged)
            drawn = page.Drawn(painter.images(), painter.instances())
        with open_text(self._out / PAGE) as file:
            file.write(page.render(summary, drawn))
        write_summary(self._out / SUMMARY, summary)  # last: pictures may have been set aside

    def _judged(self, case: Case) -> tuple[Verdicts, list[Finding]]:
        verdicts = judge(case.evidence, self._graders.of(case.key).grader)
        return verdicts, findings(case, verdicts)

    def _image(self, case: Case) -> None:
        self._counts["labels"] += len(case.labels)
        self._counts["predictions"] += len(case.evidence.crowd)
        self._counts["unpredicted"] += not case.predicted
        if self._settings.skip_unpredicted and not case.predicted:
            self._unjudged(case)
            return
        verdicts, found = self._judged(case)
        for finding in found:
            self._instances.add(finding.error, finding.cells(self._names))
            self._top.add(finding.error, finding)
            if finding.error >= LIKELY and finding.grade != "clean":
                self._worst[finding.grade].add(finding.error, finding)
        audited(self._audited, case, found, self._ids)
        self._count(case, verdicts, found)
        self._correct(case, verdicts, found, self._graders.of(case.key))

    def _unjudged(self, case: Case) -> None:
        audited(self._audited, case, (), self._ids)
        if self._corrector is not None:
            self._corrector.changed(case, ())
        name, n = case.entry.file_name, len(case.labels)
        self._ranking.append(ImageRow(0.0, 0.0, 0, name, case.key, n, 0, "", False))

    def _count(self, case: Case, verdicts: Verdicts, found: list[Finding]) -> None:
        wrong = [f for f in found if f.error >= LIKELY]
        kinds = Counter(f.grade for f in wrong if f.grade != "clean")
        self._likely.update(kinds)
        of_labels = verdicts.posterior[verdicts.label >= 0].sum(axis=0)
        of_labels[GRADES.index("missed")] = verdicts.posterior[
            verdicts.label < 0, GRADES.index("missed")
        ].sum()
        self._expected += of_labels
        expected = float(of_labels[1:].sum())
        row = ImageRow(
            expected=expected,
            share=expected / max(len(found), 1),
            likely=len(wrong),
            image=case.entry.file_name,
            key=case.key,
            labels=len(case.labels),
            predictions=len(case.evidence.crowd),
            kind=kinds.most_common(1)[0][0] if kinds else "",
            judged=True,
        )
        self._ranking.append(row)

    def _correct(self, case: Case, verdicts: Verdicts, found: list[Finding], by: Judge) -> None:
        """Apply the safe fixes, and compare with the truth where there is one."""
        truth = None
        if case.key in self._sources.truths:
            truth = self._sources.true_labels(case.key, first=True)
        if self._corrector is None:
            if truth is not None:
                self._checker.add(case, verdicts, truth, np.zeros(len(verdicts), np.bool_))
                self._checker.compare("before", case.labels, truth)
            return
        worded = Verdicts(**{**vars(verdicts), "reason": tuple(f.reason for f in found)})
        corrected = correct(case.labels, worded, by.limits if by.calibrated else {})
        if truth is None:
            self._corrector.changed(case, corrected.changes)
            self._applied.update(GRADES[k] for k in verdicts.grade[corrected.acted])
            return
        self._corrector.true(case, truth)
        self._checker.add(case, verdicts, truth, corrected.acted)
        self._checker.compare("before", case.labels, truth)
        self._checker.compare("after", corrected.labels, truth)

    def _write_images(self) -> None:
        head = ("rank", "image", "expected_errors", "share", "likely_errors", "most_likely_kind")
        with open_text(self._out / IMAGES) as file:
            write = writer(file)
            write((*head, "labels", "predictions", "judged", "calibrated"))
            for rank, row in enumerate(self._ranking, start=1):
                marked = "yes" if self._graders.of(row.key).calibrated else "no"
                figures = (row.image, round(row.expected, 3), round(row.share, 4), row.likely, row.kind)
                write((rank, *figures, row.labels, row.predictions, "yes" if row.judged else "no", marked))

    def _summary(self) -> Summary:
        calibrated = self._graders.whole.calibrated
        corrected = (CORRECTED,) if calibrated else ()
        written = (PAGE, INSTANCES, IMAGES, AUDITED, *corrected, SET_ASIDE, SUMMARY)
        return Summary(
            folder=self._out,
            categories=self._names,
            calibrated=calibrated,
            images=len(self._ranking),
            labels=self._counts["labels"],
            predictions=self._counts["predictions"],
            instances=self._instances.rows,
            likely={kind: self._likely[kind] for kind in NOISE_KINDS},
            expected={k: float(self._expected[GRADES.index(k)]) for k in NOISE_KINDS},
            ranking=self._ranking,
            top=self._top.best(),
            worst={str(kind): top.best() for kind, top in self._worst.items()},
            set_aside=self._aside,
            unpredicted=self._counts["unpredicted"],
            truths=len(self._sources.truths),
            check=self._checker.result(calibrated),
            limits={str(k): v for k, v in self._graders.whole.limits.items()} if calibrated else {},
            corrections={k: self._applied[k] for k in NOISE_KINDS} if calibrated else None,
            files=written,
            notes=tuple(_notes(self._sources, self._graders, self._counts["unpredicted"], self._settings)),
        )


def _notes(sources: Sources, by: Graders, unpredicted: int, settings: Settings) -> list[str]:
    """What the reader must know before anything else."""
    notes = []
    if not sources.truths:
        notes.append(
            "Probabilities are UNCALIBRATED: scores of rules, good for an order and not as frequencies. "
            "Give --truth, with a few images labelled by somebody you trust, to calibrate them."
        )
    elif not by.whole.calibrated:
        notes.append(
            f"Probabilities are UNCALIBRATED: the truth of {len(sources.truths)} image(s) shows too little "
            "to learn from. Give the truth of more images."
        )
    if unpredicted:
        done = (
            "are not judged" if settings.skip_unpredicted else "are judged as if nothing had been seen there"
        )
        notes.append(
            f"{unpredicted} of {len(sources.entries)} images have no prediction at all: their labels {done}."
            + ("" if settings.skip_unpredicted else " If the detector never ran there: --skip-unpredicted.")
        )
    return notes
