"""Ready settings for comparing methods, as plain data.

``faithful`` follows the source (Groschner et al. 2022, npj Computational Materials 8, 149) as its public code
has it (github.com/ckgrosch/labelfree_chirality): 128 px pictures, rotation, zoom and half turns, the weights
of the last step; for the basic network Adadelta at 1.0 for 287,000 steps of 32; for two-step the same network
and Adadelta at 0.001, 90 steps on 20 clean particles and 287,000 on all; for co-teaching a network 88 times
smaller, Adam at 0.001 that falls linearly after 15 of 40 epochs while its first beta goes to 0.1, 39,039
steps of 128, T_k a quarter of the training, and the TRUE error rate, which the caller has to give as the
task's ``noise_rate``. Fewer steps than these (``classifier.steps``) keep the proportions, but for the 90.
Ours: a zoom that is the same along both axes, clean particles with their mirror images in batches of 32, and
in co-teaching the mean of both networks, where the source took the mean accuracy of either alone.

``fair`` gives every method the same network, optimiser and number of steps, weights averaged and chosen on
noisy validation labels, and no rate: it is estimated. Networks that train in pairs take twice the time for
the same steps. The settings of methods are those of their papers, save where ``WHY`` says otherwise; they
were checked on noisy validation labels alone. Two controls tell what early stopping and a low
learning rate do by themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe, ClassTask, require
from emclean.models.robust.base import Options


@dataclass(frozen=True)
class Preset:
    """A method with its network, recipe and settings; ``true_rate``: it is to be told the true error rate."""

    method: str
    spec: ClassifierSpec
    recipe: ClassRecipe
    options: Options = field(default_factory=dict)
    true_rate: bool = False

    def on(self, task: ClassTask) -> ClassTask:
        """The task with these settings; number of classes and of channels stay its own."""
        spec = replace(self.spec, n_classes=task.spec.n_classes, channels=task.spec.channels)
        return replace(task, spec=spec, recipe=self.recipe, options=dict(self.options))


_SOURCE = ClassifierSpec("basic", size=128)
_SOURCE_RECIPE = ClassRecipe(
    steps=287_000,
    batch=32,
    lr=1.0,
    optimiser="adadelta",
    weight_decay=0.0,
    schedule="constant",
    rotate=5.0,
    zoom=(0.7, 1.3),
    half_turns=True,
    eval_every=2870,
    keep="last",
)
_SOURCE_PEERS = replace(
    _SOURCE_RECIPE,
    steps=39_039,
    batch=128,
    lr=1e-3,
    optimiser="adam",
    schedule="late_linear",
    eval_every=1001,
)

_FAITHFUL = {
    "cross_entropy": Preset("cross_entropy", _SOURCE, _SOURCE_RECIPE),
    "two_step": Preset(
        "two_step", _SOURCE, replace(_SOURCE_RECIPE, steps=287_090, lr=1e-3), dict(first=90, second_lr=1.0)
    ),
    "co_teaching": Preset(
        "co_teaching",
        replace(_SOURCE, family="pooled"),
        _SOURCE_PEERS,
        dict(ramp_epochs=1e6, ramp_share=0.25),  # 10 of its 40 epochs, each of 1001 steps
        true_rate=True,
    ),
}

_ONE = ClassifierSpec("compact", size=64)
_RECIPE = ClassRecipe(steps=400, batch=64, lr=2e-3, weight_decay=0.01, eval_every=20, keep="best", ema=0.98)

_METHODS: Mapping[str, Options] = {
    "cross_entropy": dict(),
    "early_stopping": dict(),
    "label_smoothing": dict(smoothing=0.2),
    "gce": dict(q=0.7),
    "sce": dict(alpha=0.1, beta=1.0),
    "forward": dict(),
    "elr": dict(weight=3.0, memory=0.7),
    "sam": dict(rho=0.05),
    "two_step": dict(share=0.25, second_lr=1.0, first=0),
    "confident": dict(),
    "co_teaching": dict(ramp_epochs=10.0, ramp_share=0.5),
    "co_teaching_plus": dict(ramp_epochs=10.0, ramp_share=0.5, warm=0.3),
    "jocor": dict(ramp_epochs=10.0, ramp_share=0.5, agree=0.5),
    "dividemix": dict(unlabelled=5.0, views=1),
}

WHY: Mapping[str, str] = MappingProxyType(
    {
        "label_smoothing": "0.2 instead of 0.1: label errors are many here",
        "jocor": "agree 0.5 instead of 0.65 to 0.95: with two classes the networks agree early",
        "dividemix": "one view instead of two: half the time; weight 5, within the paper's 0 to 150",
    }
)
"""Where the settings of ``fair`` leave those of the paper, and why."""

_FAIR = {name: Preset(name, _ONE, _RECIPE, options) for name, options in _METHODS.items()}
_CONTROLS = {
    "low_rate": Preset("early_stopping", _ONE, replace(_RECIPE, lr=_RECIPE.lr / 10)),
    "no_average": Preset("early_stopping", _ONE, replace(_RECIPE, ema=0.0)),
}

PRESETS: Mapping[str, Mapping[str, Preset]] = MappingProxyType(
    {"faithful": MappingProxyType(_FAITHFUL), "fair": MappingProxyType({**_FAIR, **_CONTROLS})}
)
"""Presets by kind and name; controls of ``fair`` stand beside its methods."""


def preset(kind: str, name: str) -> Preset:
    """One preset; ``ValueError`` names what there is."""
    require(kind in PRESETS, "preset", " or ".join(PRESETS), kind)
    require(name in PRESETS[kind], f"method of {kind}", ", ".join(PRESETS[kind]), name)
    return PRESETS[kind][name]
