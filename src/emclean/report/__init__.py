"""Plots, overlays and the self-contained HTML report."""
