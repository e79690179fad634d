"""Grading of crowd labels: what each label is worth, judged by models that did not learn from it."""

from emclean.science.grading.evidence import Evidence
from emclean.science.grading.features import Features, features
from emclean.science.grading.grade import Grader, grade
from emclean.science.grading.habits import with_habits
from emclean.science.grading.images import ImageScore, expected_minutes, image_score, shown
from emclean.science.grading.places import with_places
from emclean.science.grading.rules import Rules

__all__ = [
    "Evidence",
    "Features",
    "Grader",
    "ImageScore",
    "Rules",
    "expected_minutes",
    "features",
    "grade",
    "image_score",
    "shown",
    "with_habits",
    "with_places",
]
