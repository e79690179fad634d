"""Label Studio: a server on this machine, the labelling page, tasks pushed once, answers pulled."""

from emclean.stores.label_studio.client import LabelStudioClient, Unanswered, read_token
from emclean.stores.label_studio.pictures import LocalPictures
from emclean.stores.label_studio.server import ServerProcess, start, stop
from emclean.stores.label_studio.service import LabelStudioService

__all__ = [
    "LabelStudioClient",
    "LabelStudioService",
    "LocalPictures",
    "ServerProcess",
    "Unanswered",
    "read_token",
    "start",
    "stop",
]
