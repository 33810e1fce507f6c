"""Forward passes of the image towers that training uses: any size, some patches, and what is
written into a ViT's class token on the way."""

import copy
from itertools import zip_longest

import torch
from torch.nn import functional as F

# What the class token hears is penalised on one image of this many: it costs as much as the pass.
HEARD = 4


def attend(block, x):
    """What a block's attention writes, [image, token, width].

    On CPUs softmax(QKᵀ)V is written out: its backward pass is far cheaper than the flash kernel's,
    and one unbinding of queries, keys and values than three selections.
    """
    attention = block.attn
    packed = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = packed.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    if x.is_cuda:
        mixed = F.scaled_dot_product_attention(q, k, v)
    else:
        mixed = torch.softmax((q * attention.head_dim**-0.5) @ k.mT, -1) @ v
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


class BFloat16Copy:
    """A bf16 working copy of a float32 model: forward and backward run on the copy, the optimiser
    on the model."""

    def __init__(self, model):
        self.work = copy.deepcopy(model).bfloat16()
        self.pairs = list(zip(model.parameters(), self.work.parameters(), strict=True))

    def gradients(self):
        """After the backward pass: move the copy's gradients to the model."""
        for mine, works in self.pairs:
            mine.grad, works.grad = None if works.grad is None else works.grad.float(), None

    @torch.no_grad()
    def refresh(self):
        """After the model has changed."""
        for mine, works in self.pairs:
            works.copy_(mine)


def stretched(places: torch.Tensor, side: int) -> torch.Tensor:
    """Position embeddings [grid², width] of a square grid, for another side."""
    grid = int(len(places) ** 0.5)
    if side == grid:
        return places
    maps = places.T.reshape(1, -1, grid, grid)
    return F.interpolate(maps, size=(side, side), mode="bilinear").flatten(2)[0].T


def heard(block, tokens, parts):
    """What the class token takes of parts of the stream through a block's heads: [part, image,
    width].

    parts: [image, token, width] each. Linear in each: of all of `tokens` it is what the attention
    writes, but for a constant.
    """
    norm, attention = block.ln_1, block.attn
    normed = norm(tokens)
    sigma = (tokens.float().var(-1, unbiased=False) + norm.eps).sqrt().to(tokens)
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)

    def split(x):
        return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    query = split(F.linear(normed[:, :1], weights[0], biases[0]))
    key = split(F.linear(normed, weights[1], biases[1]))
    looks = torch.softmax(query @ key.mT * attention.head_dim**-0.5, -1)[:, :, 0]
    looks = looks / sigma[:, None]  # [image, head, token]
    seen = torch.stack([looks @ part for part in parts])
    seen = (seen - seen.mean(-1, keepdim=True)) * norm.weight
    values = weights[2].unflatten(0, (attention.num_heads, -1))  # [head, head width, width]
    taken = torch.einsum("pihw,hdw->pihd", seen, values).flatten(2)
    return F.linear(taken, attention.out_proj.weight)


def vit(visual, images, listens_from: int | None = None, keep: int = 0):
    """Embeddings [image, embed] and, with `listens_from`, two penalties on how they come about.

    Each is a sum of batch variances of parts of the normalised embedding, over the (detached) one
    of the whole: of what every MLP, and the attention of the blocks before `listens_from`, writes
    into the class token; and of what the class token takes, in all blocks, of parts of the streams
    that are not the later half's MLPs': of the embeddings, of attention and of each MLP of the
    earlier half, so that none cancels another. `keep`: this many patches by chance, all if 0.
    """
    tokens = F.conv2d(images, visual.conv1.weight, stride=visual.patch_size[0])
    side = tokens.shape[-1]
    places = visual.positional_embedding
    tokens = tokens.flatten(2).mT + stretched(places[1:], side)
    if keep:
        kept = torch.rand(tokens.shape[:2], device=tokens.device).topk(keep, 1).indices
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
    first = (visual.class_embedding + places[0]).expand(len(tokens), 1, -1)
    x = visual.ln_pre(torch.cat([first, tokens], 1))
    few = slice(None, None, HEARD)  # a batch holds scenes first, then photographs
    besides, taken, attention, parts = [], [], 0.0, [x[few]]
    last = len(visual.transformer.resblocks) - 1
    for index, block in enumerate(visual.transformer.resblocks):
        if index and listens_from is not None:
            heard_now = heard(block, x[few], [attention, *parts])
            taken = [a + b for a, b in zip_longest(taken, heard_now, fillvalue=0.0)]
        attended = attend(block, block.ln_1(x))
        x, attention = x + attended, attention + attended[few]
        if index == last:  # only the class token is read from here on
            x = x[:, :1]
        written = block.mlp(block.ln_2(x))
        x = x + written
        besides.append(written[:, 0])
        if listens_from is not None and index <= last // 2:
            parts.append(written[few] - block.mlp.c_proj.bias)  # as the lens counts neurons
        if listens_from is not None and index < listens_from:
            besides.append(attended[:, 0])
    out = visual.ln_post(x[:, 0]) @ visual.proj
    if listens_from is None:
        return out, 0.0, 0.0
    return out, share(visual, x[:, 0], out, besides), share(visual, x[few, 0], out[few], taken)


def share(visual, token, out, parts):
    """Batch variances of parts of the class token [image, width], as the embedding shows them,
    summed, over the one of normalised embeddings `out`; norms are taken as given."""
    norm = out.float().norm(dim=-1, keepdim=True).detach()
    sigma = (token.float().var(-1, unbiased=False, keepdim=True) + visual.ln_post.eps).sqrt()
    parts = torch.stack(parts)
    centred = (parts - parts.mean(-1, keepdim=True)) * visual.ln_post.weight
    shown = (centred @ visual.proj) / (sigma * norm).detach().to(parts)
    whole = (out.float() / norm).var(0).sum().detach() + 1e-6
    return shown.float().var(-2).sum() / whole


def resnet(visual, images):
    """Embeddings [image, embed] of images of any side; the pooling's positions are stretched."""
    x = visual.stem(images)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    pool, side = visual.attnpool, x.shape[-1]
    tokens = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens])
    places = pool.positional_embedding
    places = torch.cat([places[:1], stretched(places[1:], side)])
    tokens = tokens + places[:, None].to(tokens.dtype)
    out, _ = F.multi_head_attention_forward(
        query=tokens[:1], key=tokens, value=tokens, embed_dim_to_check=tokens.shape[-1],
        num_heads=pool.num_heads, q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight, in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight, out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True, training=False, need_weights=False,
    )  # fmt: skip
    return out[0]
