"""Classifiers of single particles, and how they predict. Importing ``spec`` alone does not load torch."""
