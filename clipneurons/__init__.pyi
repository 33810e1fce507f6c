from .adversarial.cues import Cues
from .bundle.bundle import Bundle, load_bundle, save_bundle
from .bundle.config import BundleError, BundleMismatch
from .bundle.neuron import Neuron
from .bundle.sparse_features import SparseFeatures
from .concepts.image_concepts import ImageConcepts, UnitOnImage
from .dictionary.search import SearchResult, search
from .lens.feature_files import load_features
from .lens.lens import Lens, LensResult
from .models.anatomy import UnsupportedModel
from .models.clip import ClipModel, load_clip
from .reader import Reader, compare_sets, find_cues
from .segmentation.image_masks import ImageMasks
from .shift.report import SetComparison

__all__ = [
    "Bundle",
    "BundleError",
    "BundleMismatch",
    "ClipModel",
    "Cues",
    "ImageConcepts",
    "ImageMasks",
    "Lens",
    "LensResult",
    "Neuron",
    "Reader",
    "SearchResult",
    "SetComparison",
    "SparseFeatures",
    "UnitOnImage",
    "UnsupportedModel",
    "compare_sets",
    "find_cues",
    "load_bundle",
    "load_clip",
    "load_features",
    "save_bundle",
    "search",
]

__version__: str
