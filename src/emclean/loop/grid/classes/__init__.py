"""Grids over classes: how good a classifier each method of learning from noisy labels gives."""
