"""Grids over boxes: what each method makes of noisy boxes, and how good a detector that gives."""
