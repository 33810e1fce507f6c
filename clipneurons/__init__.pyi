from .bundle.bundle import Bundle, load_bundle, save_bundle
from .bundle.config import BundleError
from .bundle.neuron import Neuron
from .dictionary.search import SearchResult, search
from .lens.lens import Lens, LensResult
from .models.anatomy import UnsupportedModel
from .models.clip import ClipModel, load_clip

__all__ = [
    "Bundle",
    "BundleError",
    "ClipModel",
    "Lens",
    "LensResult",
    "Neuron",
    "SearchResult",
    "UnsupportedModel",
    "load_bundle",
    "load_clip",
    "save_bundle",
    "search",
]

__version__: str
