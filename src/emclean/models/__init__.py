"""Detectors and the engine that trains them, without Ray."""
