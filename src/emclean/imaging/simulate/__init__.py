"""Simulated micrographs with exact truth: tissue and particles with boxes, chiral particles with their hands.

Every draw comes from the generator that is passed in, so a seed gives the same pictures again.
"""

from emclean.imaging.simulate.canvas import Field
from emclean.imaging.simulate.chiral import Cutout, cutout
from emclean.imaging.simulate.dataset import Written, write_dataset
from emclean.imaging.simulate.glomerulus import field
from emclean.imaging.simulate.micrograph_files import WrittenMicrographs, write_micrographs
from emclean.imaging.simulate.micrographs import Recipe, Scene, scene
from emclean.imaging.simulate.particle_sets import WrittenParticles, write_particle_set
from emclean.imaging.simulate.particles import mixed_field, particles

__all__ = [
    "Cutout", "Field", "Recipe", "Scene", "Written", "WrittenMicrographs", "WrittenParticles", "cutout",
    "field", "mixed_field", "particles", "scene", "write_dataset", "write_micrographs", "write_particle_set",
]  # fmt: skip
