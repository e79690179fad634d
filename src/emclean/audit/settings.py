"""What can be set in an audit."""

from dataclasses import dataclass

from emclean.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Predictions from ``confident`` on can propose objects; corrections must reach ``precision``.

    ``top`` findings and images are listed in the page, of which ``pictures`` each are drawn; ``seed`` draws
    the images that calibrate; with ``skip_unpredicted`` images that no prediction names are not judged.
    """

    confident: float = 0.2
    precision: float = 0.95
    top: int = 100
    pictures: int = 12
    seed: int = 0
    skip_unpredicted: bool = False

    def __post_init__(self) -> None:
        faults = [
            f"{name}: expected a number from 0 to 1, got {value}"
            for name, value in (("confident", self.confident), ("precision", self.precision))
            if not 0 < value <= 1
        ]
        faults += [
            f"{name}: expected at least 0, got {value}"
            for name, value in (("top", self.top), ("pictures", self.pictures), ("seed", self.seed))
            if value < 0
        ]
        if faults:
            raise ConfigError(faults, "audit")
