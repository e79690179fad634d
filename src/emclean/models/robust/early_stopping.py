"""Plain training that stops before wrong labels are learnt by heart.

Networks fit right labels before wrong ones (Arpit et al. 2017, arXiv 1706.05394); accuracy on noisy
validation labels falls when the second begins, and ranks models as clean labels would where errors do not
depend on the picture (Chen et al. 2021, arXiv 2012.04193).
"""

from emclean.models.classifiers.spec import ClassRecipe
from emclean.models.robust.base import Method, Options, settings


class EarlyStopping(Method):
    """-log p of the given label; the weights best on noisy validation stay, whatever the recipe says.

    Training ends after ``patience`` evaluations in a row that are clearly below the best.
    """

    name = "early_stopping"
    options = settings(patience=5)

    def keep(self, recipe: ClassRecipe) -> str:
        """The best weights."""
        return "best"

    def patience(self, options: Options) -> int:
        """As the option says."""
        return int(options["patience"])
