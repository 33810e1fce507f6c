from .adversarial.cues import Cues
from .bundle.bundle import Bundle, load_bundle, save_bundle
from .bundle.config import BundleError, BundleMismatch
from .bundle.neuron import Neuron
from .bundle.sparse_features import SparseFeatures
from .concepts.image_concepts import ImageConcepts, UnitOnImage
from .dictionary.search import SearchResult, search
from .edit.edit import Edit
from .edit.reading import EditReading
from .lens.feature_files import load_features
from .lens.lens import Lens, LensResult
from .models.anatomy import UnsupportedModel
from .models.clip import ClipModel, load_clip
from .pipeline import analyse
from .plots import plot_ablation, plot_effects, plot_heatmap
from .reader import Reader, compare_sets, find_cues
from .segmentation.image_masks import ImageMasks
from .shift.report import SetComparison

__all__ = [
    "Bundle",
    "BundleError",
    "BundleMismatch",
    "ClipModel",
    "Cues",
    "Edit",
    "EditReading",
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
    "analyse",
    "compare_sets",
    "find_cues",
    "load_bundle",
    "load_clip",
    "load_features",
    "plot_ablation",
    "plot_effects",
    "plot_heatmap",
    "save_bundle",
    "search",
]

__version__: str
