"""Unit-norm embeddings of texts, in prompt templates."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from open_clip.tokenizer import canonicalize_text
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.text.templates import TEMPLATES


def _templates(templates: str | Sequence[str]) -> Sequence[str]:
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise ValueError(
                f"there are no templates {templates!r}. Expected one of {', '.join(TEMPLATES)}, "
                'or a list such as ["a photo of a {}."]'
            )
        return TEMPLATES[templates]
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} must hold {{}} once, where the text goes")
    if not templates:
        raise ValueError("expected at least one template, got none")
    return templates


@torch.no_grad()
def embed_texts(
    clip: ClipModel,
    texts: Sequence[str],
    templates: str | Sequence[str] | None = None,
    batch: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Float[Tensor, "text embed"]:
    """Unit-norm float32 embedding of each text, on the model's device.

    With templates it is the mean over the prompts' unit embeddings, normalised again. Prompts of
    named templates go to a SigLIP without punctuation, as its authors evaluate it.

    Args:
        templates: a name in `TEMPLATES` or a list of strings with ``{}``; by default the text
            itself.
        batch: prompts that go through the text tower together.
        progress: called with the number of texts just done, e.g. ``tqdm(...).update``.

    Raises:
        ValueError: no texts, bad templates, embeddings that are not finite.
    """
    if len(texts) == 0:
        raise ValueError("expected at least one text, got none")
    if isinstance(texts, str):
        raise ValueError(f"expected a list of texts, got the single string {texts!r}")
    if batch < 1:
        raise ValueError(f"expected a batch of at least 1 prompt, got {batch}")
    chosen = _templates("none" if templates is None else templates)
    clean = canonicalize_text if isinstance(templates, str) and clip.siglip else str
    embeddings = torch.zeros(len(texts), clip.embed_dim, device=clip.device)
    prompts = len(texts) * len(chosen)
    for start in range(0, prompts, batch):
        numbers = range(start, min(start + batch, prompts))
        # Prompt number i is text i // len(chosen) in template i % len(chosen).
        owners = [i // len(chosen) for i in numbers]
        filled = [chosen[i % len(chosen)].replace("{}", texts[i // len(chosen)]) for i in numbers]
        filled = [clean(prompt) for prompt in filled]
        embeddings.index_add_(
            0, torch.tensor(owners, device=clip.device), clip.encode_text(filled).float()
        )
        if progress is not None:
            progress(numbers.stop // len(chosen) - start // len(chosen))
    return _unit(embeddings, "the text tower gave")


@torch.no_grad()
def centre(embeddings: Float[Tensor, "text embed"]) -> Float[Tensor, "text embed"]:
    """Rows minus the pool's mean row, at norm 1: what each text says that the others do not.

    An option of the decomposition; the papers' description uses the rows as they are.

    Raises:
        ValueError: a row that equals the mean, such as the only row of a pool.
    """
    return _unit(embeddings - embeddings.mean(dim=0), "centring left")


def _unit(rows: Float[Tensor, "text embed"], cause: str) -> Float[Tensor, "text embed"]:
    norms = rows.norm(dim=1, keepdim=True)
    # 1e-5 is far below any real spread of embeddings and above what rounding leaves of zero.
    bad = ~((norms > 1e-5) & norms.isfinite()).squeeze(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"{cause} {int(bad.sum())} of {len(rows)} texts no direction (zero, NaN or infinite), "
            f"the first is text {first}"
        )
    return rows / norms
