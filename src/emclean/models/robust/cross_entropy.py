"""Plain training on the labels as they are, to the end: what every other method is measured against."""

from emclean.models.classifiers.spec import ClassRecipe
from emclean.models.robust.base import Method


class CrossEntropy(Method):
    """-log p of the given label; the weights of the last step are kept, whatever the recipe says."""

    name = "cross_entropy"

    def keep(self, recipe: ClassRecipe) -> str:
        """The last weights."""
        return "last"
