"""The two labelling pages, boxes and classes, as the service uses them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emclean.stores.label_studio import choices, convert, page
from emclean.stores.label_studio.convert import Reading
from emclean.types import TaskSpec


@dataclass(frozen=True)
class Form:
    """How a page is made, what is sent to it, and how its answers are read."""

    configuration: Callable[[Sequence[str]], str]
    instructions: Callable[[Sequence[str], str], str]
    task_body: Callable[[TaskSpec, str], dict[str, Any]]
    prediction: Callable[[TaskSpec], dict[str, Any] | None]
    read: Callable[[Mapping[str, Any], Mapping[str, Any], Sequence[str], str], Reading]


BOXES = Form(page.configuration, page.instructions, convert.task_body, convert.prediction, convert.read)

CLASSES = Form(
    choices.configuration, choices.instructions, choices.task_body, choices.prediction, choices.read
)
