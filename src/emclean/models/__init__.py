"""Detectors and the engine that trains them, without Ray. Importing ``spec`` alone does not load torch."""
