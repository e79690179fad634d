"""An analysis as a registered model: its networks in one file, all that decides the rest in its card."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emclean.loop import serving
from emclean.loop.analysis.judges import Judges
from emclean.loop.analysis.opening import REGISTERED, Analysis, settings_of
from emclean.loop.analysis.particles import Particles
from emclean.loop.analysis.picture import Way
from emclean.loop.analysis.segmenters import digest_of
from emclean.loop.code import code_version
from emclean.models.parts import pack

REVISION = "digest of the clean labels"
"""The fact that becomes the model's label revision."""


@dataclass(frozen=True)
class Published:
    """The registered version, whether it is the champion, and where which version is served, if any."""

    model_version: str
    promoted: bool
    served: Mapping[str, str] | None


def publish(analysis: Analysis, used: Judges, network: str | None, run_id: str) -> Published:
    """Register the analysis once by its content, promote it where it may be, and serve the champion."""
    registry, say = analysis.registry, analysis.console.say
    facts = card(analysis, used)
    with analysis.console.stage("registering the analysis"), TemporaryDirectory() as folder:
        weights = Path(folder) / "analysis.safetensors"
        pack(weights, networks(used, network))
        version = registry.register(key(used, network, facts), weights, facts, run_id)
    champion = registry.champion()
    if champion != version:
        promoted, why = gate(facts, None if champion is None else registry.card(champion))
        say(f"version {version} {'promoted' if promoted else 'not promoted'}: {why}")
        if promoted:
            registry.promote(version)
    served = None
    if analysis.swap is not None:
        served = serving.serve_champion(
            registry, analysis.swap, analysis.workspace, REGISTERED, analysis.console
        )
    return Published(version, registry.champion() == version, served)


def networks(used: Judges, network: str | None) -> dict[str, str]:
    """The files of weights by their parts; those that an analysis does without are left out."""
    files = {"hand": used.hand, "usable": used.usable, "segmenter": network}
    return {name: file for name, file in files.items() if file is not None}


def key(used: Judges, network: str | None, facts: Mapping[str, Any]) -> str:
    """What makes a registered analysis unique: its networks and all that decides what comes out."""
    decides = [used.digest(), digest_of(network), facts["way"], facts["label_revision"]]
    return f"analysis/{hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]}"


def card(analysis: Analysis, used: Judges) -> dict[str, Any]:
    """The model card kept with the weights and shown by the server."""
    facts, settings = used.facts, analysis.settings
    figures = {name.replace(" ", "_"): value for name, value in facts.items() if isinstance(value, float)}
    return {
        **way_of(analysis, used).card(),
        "run": analysis.run,
        "name": REGISTERED,
        "label_revision": facts.get(REVISION),
        "accuracy": facts.get("hand right"),
        "metrics": figures,
        "simulated": settings.data.images is None,
        "code_version": code_version(),
    }


def way_of(analysis: Analysis, used: Judges) -> Way:
    """All that decides what comes out of a picture, but the networks."""
    keys, settings = analysis.settings.segmentation, analysis.settings
    return Way(
        settings_of(settings),
        settings.classifier.usable_from,
        keys.window,
        keys.length_nm,
        keys.pixel_size_nm,
        used.confusion,
        settings.confidence,
    )


def revision(clean: Particles) -> str:
    """The digest of clean labels and their pictures."""
    sha = hashlib.sha256(clean.pictures.tobytes())
    sha.update(clean.labels.tobytes())
    return sha.hexdigest()[:16]


def gate(new: Mapping[str, Any], champion: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Whether an analysis may take the champion's place, and why: it must be known as well as that one."""
    if champion is None:
        return True, "there is no champion yet"
    ours, theirs = _known(new), _known(champion)
    if ours < theirs:
        return False, f"{WORDS[ours]}; of the champion: {WORDS[theirs]}"
    return True, WORDS[ours]


WORDS = (
    "it is for simulated micrographs",
    "its mistakes in these micrographs are not known",
    "its mistakes are counted on clean labels",
)


def _known(card: Mapping[str, Any]) -> int:
    """How much is known of the mistakes of an analysis in real micrographs."""
    if card.get("simulated"):
        return 0
    return 1 if card["way"]["confusion"] is None else 2
