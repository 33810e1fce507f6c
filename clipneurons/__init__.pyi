from .bundle.bundle import Bundle, load_bundle, save_bundle
from .bundle.config import BundleError
from .bundle.neuron import Neuron
from .bundle.sparse_features import SparseFeatures
from .dictionary.search import SearchResult, search
from .lens.feature_files import load_features
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
    "SparseFeatures",
    "UnsupportedModel",
    "load_bundle",
    "load_clip",
    "load_features",
    "save_bundle",
    "search",
]

__version__: str
