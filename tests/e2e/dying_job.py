"""The main job as a program that kills itself at a moment that no signal from outside would hit.

    python tests/e2e/dying_job.py measured|training|registered|promoted key=value ...

``measured``: round 0 is about to be published. In round 1, ``training``: while a worker trains the round's
model; ``registered``: its model is in the registry, but no champion yet; ``promoted``: it is the champion,
but not served yet.
"""

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

from emclean.distributed.train import steps_done
from emclean.loop import publishing, steps
from emclean.loop.compute import RayCompute
from emclean.loop.states import Phase
from emclean.stores.registry import MlflowRegistry

ROUND = 1
JOB = Path(__file__).resolve().parents[2] / "pipelines" / "active_clean.py"


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def measured():
    """Die when the first round's model is to be published."""
    steps.STEPS[Phase.PUBLISH] = lambda job, state: die()


def training():
    """Die when the worker has told of steps of the round's model, and has more before it."""
    train, fit_all = steps.STEPS[Phase.TRAIN], RayCompute.fit_all
    here = []

    def step(job, state):
        here.append(state.round)
        return train(job, state)

    def fit(self, jobs, progress):
        if here[-1:] == [ROUND]:
            threading.Thread(target=die_with, args=(jobs[0],), daemon=True).start()
        return fit_all(self, jobs, progress)

    steps.STEPS[Phase.TRAIN] = step
    RayCompute.fit_all = fit


def die_with(job):
    """Die as soon as some, but not all, steps of this training are done."""
    while not 0 < steps_done(job) < job.schedule.max_steps:
        time.sleep(0.002)
    die()


def registered():
    """Die when the registry has just taken the round's model."""
    register = MlflowRegistry.register

    def then(self, key, weights, card, run_id):
        version = register(self, key, weights, card, run_id)
        if card["round"] == ROUND:
            die()
        return version

    MlflowRegistry.register = then


def promoted():
    """Die when the round's model has just become the champion.

    A model trained for seconds may well be worse than the one before it: here the gate lets it pass, so
    that the moment comes.
    """
    promote, judge = MlflowRegistry.promote, publishing.gate

    def gate(job, state, weights):
        passed, why = judge(job, state, weights)
        return passed or state.round == ROUND, why

    def then(self, version):
        promote(self, version)
        if self.card(version)["round"] == ROUND:
            die()

    MlflowRegistry.promote, publishing.gate = then, gate


if __name__ == "__main__":
    moment, *settings = sys.argv[1:]
    {f.__name__: f for f in (measured, training, registered, promoted)}[moment]()
    sys.argv = [str(JOB), *settings]
    runpy.run_path(str(JOB), run_name="__main__")
