"""Simulated micrographs with exact boxes: the demonstration's data and the detector's pre-training.

Every draw comes from the generator that is passed in, so a seed gives the same pictures again.
"""

from emclean.imaging.simulate.canvas import Field
from emclean.imaging.simulate.dataset import Written, write_dataset
from emclean.imaging.simulate.glomerulus import field
from emclean.imaging.simulate.particles import mixed_field, particles

__all__ = ["Field", "Written", "field", "mixed_field", "particles", "write_dataset"]
