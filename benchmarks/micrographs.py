"""Speed and memory on one large micrograph: a plain loop, one worker, two workers of Ray Data.

    python -m benchmarks.micrographs --folder workspace/large [--size 20000]

The micrograph is simulated into the folder once (20,000 px: 400 MB, some minutes). Every mode works through
all windows anew, in a process of its own: segmentation, pose and both classifiers (untrained ones, which take
as long). Peak memory is that of the largest single process, the driver included, as the kernel counts it. The
figures of a mode are kept in the folder, and measured again with ``--anew``.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from emclean.distributed import session, stream
from emclean.imaging import simulate
from emclean.imaging.segmentation import Settings
from emclean.imaging.simulate.micrograph_files import write_scene
from emclean.loop.analysis.bands import bands
from emclean.loop.analysis.pieces import Measured, Micrograph, Piece, pieces_of
from emclean.loop.analysis.running import kept_levels
from emclean.loop.analysis.work import Measuring, Search
from emclean.models.classifiers import engine
from emclean.models.classifiers.nets import build
from emclean.models.classifiers.spec import ClassifierSpec

MODES = {"plain loop": 0, "1 worker": 1, "2 workers": 2}


def main() -> None:
    """Parse, write the micrograph, run every mode, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--anew", action="store_true", help="measure again what is kept")
    parser.add_argument("--mode", choices=MODES, help="run this one alone, and print its figures as JSON")
    options = parser.parse_args()
    picture = options.folder / f"micrograph-{options.size}.tif"
    if options.mode:
        print(json.dumps(measured(picture, options.window, MODES[options.mode])))
        return
    if not picture.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        since = time.monotonic()
        write_scene(simulate.scene(0, (options.size, options.size)), picture)
        print(f"simulated in {time.monotonic() - since:.0f} s")
    print("mode         seconds  million px a second  peak of one process  particles")
    for mode in MODES:
        out = known(options, mode)
        rate = options.size**2 / out["seconds"] / 1e6
        print(
            f"{mode:12s} {out['seconds']:7.1f} {rate:20.2f} {out['peak_mb']:17.0f} MB {out['found']:10d}",
            flush=True,
        )


def known(options: argparse.Namespace, mode: str) -> dict[str, float]:
    """The figures of a mode, from the folder or measured in a process of its own."""
    kept: Path = options.folder / f"{mode.replace(' ', '-')}-{options.size}-{options.window}.json"
    if options.anew or not kept.exists():
        line = [sys.executable, "-m", "benchmarks.micrographs", "--folder", str(options.folder)]
        line += ["--size", str(options.size), "--window", str(options.window), "--mode", mode]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{mode} failed:\n{done.stderr}")
        kept.write_text(done.stdout.splitlines()[-1])
    figures: dict[str, float] = json.loads(kept.read_text())
    return figures


@dataclass(frozen=True)
class Watched:
    """Work that also tells the memory that its process has had at most."""

    work: Search

    def __call__(self, text: str) -> str:
        """Do the piece."""
        return json.dumps({**json.loads(self.work(text)), "peak_mb": peak()})


def peak() -> float:
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(picture: Path, window: int, workers: int) -> dict[str, float]:
    """Work through the picture; seconds, peak memory and particles."""
    with TemporaryDirectory() as name:
        home = Path(name)
        levels = _measure(picture, home)
        found = Micrograph(picture.name, str(picture), picture.stem, "all")
        pieces = pieces_of(found, levels, window, {})
        work = Watched(Search(Settings(), *_weights(home), 0.5, str(home)))
        peaks: list[float] = []
        seconds = _run(work, pieces, lambda text: peaks.append(json.loads(text)["peak_mb"]), workers)
        n = sum(int((objects["reason"] == "").sum()) for objects in bands(home / "windows", pieces))
        return {"seconds": seconds, "peak_mb": max([*peaks, peak()]), "found": n}


def _measure(picture: Path, home: Path) -> Measured:
    asked = {"key": "of", "uri": str(picture), "image_id": "micrograph"}
    Measuring(Settings(), None, None, str(home))(json.dumps(asked))
    return kept_levels(home / "levels" / "of.json")


def _weights(home: Path) -> list[str]:
    """Untrained classifiers of hands and of usable poses."""
    files = []
    for name, mirror in (("hand", True), ("usable", False)):
        spec = ClassifierSpec(mirror=mirror)
        files.append(home / f"{name}.safetensors")
        engine.save(files[-1], spec, [build(spec).state_dict()])
    return [str(file) for file in files]


def _run(work: Watched, pieces: Sequence[Piece], ended: Callable[[str], None], workers: int) -> float:
    """The seconds that all pieces take; a cluster that has to start does not count."""
    texts = [piece.text() for piece in pieces]
    if not workers:
        torch.set_num_threads(1)
        since = time.monotonic()
        for text in texts:
            ended(work(text))
        return time.monotonic() - since
    with session.connect("", workers):
        stream.run_all(str.upper, ["a"], lambda text: None)  # the first stream starts processes
        since = time.monotonic()
        stream.run_all(work, texts, ended, at_once=workers)
        return time.monotonic() - since


if __name__ == "__main__":
    main()
