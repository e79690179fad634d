"""Grading, selection, correction and their measurement: arrays in, arrays out."""
