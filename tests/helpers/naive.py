"""The formulas, as float64 loops written straight from the papers.

Slow and literal on purpose: nothing is shared with the library but the model's weights.
"""

import math

import torch


def layer_norm(x, weight, bias, eps):
    mean = x.mean()
    sigma = math.sqrt(((x - mean) ** 2).mean() + eps)
    return (x - mean) / sigma * weight + bias, mean, sigma


def gelu(x, quick):
    return x * torch.sigmoid(1.702 * x) if quick else x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class NaiveViT:
    """A forward pass of one image that keeps every intermediate value."""

    def __init__(self, clip, image):
        visual = clip.visual
        self.clip, self.visual = clip, visual
        self.weights = {name: p.double() for name, p in visual.state_dict().items()}
        self.heads, self.layers = clip.heads, clip.layers
        w = self.weights
        patch = visual.conv1.kernel_size[0]
        rows, columns = (side // patch for side in clip.image_size)
        tokens = [w["class_embedding"] + w["positional_embedding"][0]]
        for row in range(rows):
            for column in range(columns):
                window = image.double()[
                    :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch
                ]
                embedded = (w["conv1.weight"] * window).sum((1, 2, 3))
                tokens.append(embedded + w["positional_embedding"][len(tokens)])
        if "ln_pre.weight" in w:
            tokens = [
                layer_norm(t, w["ln_pre.weight"], w["ln_pre.bias"], visual.ln_pre.eps)[0]
                for t in tokens
            ]
        self.start = tokens[0]
        self.blocks = [None] * self.layers
        for index in range(self.layers):
            tokens = self._block(index, tokens)
        out, self.post_mean, self.post_sigma = layer_norm(
            tokens[0], w["ln_post.weight"], w["ln_post.bias"], visual.ln_post.eps
        )
        self.final = tokens[0]
        self.representation = out @ w["proj"]

    def block(self, index, name):
        return self.weights[f"transformer.resblocks.{index}.{name}"]

    def _block(self, index, tokens):
        block = self.visual.transformer.resblocks[index]
        normed, means, sigmas = zip(
            *(
                layer_norm(t, self.block(index, "ln_1.weight"), self.block(index, "ln_1.bias"),
                           block.ln_1.eps)
                for t in tokens
            ),
            strict=True,
        )  # fmt: skip
        width = len(tokens[0])
        rank = width // self.heads
        weight = self.block(index, "attn.in_proj_weight")
        bias = self.block(index, "attn.in_proj_bias")
        out_weight = self.block(index, "attn.out_proj.weight")
        out_bias = self.block(index, "attn.out_proj.bias")
        attended = [out_bias.clone() for _ in tokens]
        class_attention, class_heads = [], []
        for head in range(self.heads):
            part = slice(head * rank, (head + 1) * rank)
            query, key, value = (
                [weight[offset * width :][part] @ x + bias[offset * width :][part] for x in normed]
                for offset in range(3)
            )
            for i in range(len(tokens)):
                logits = torch.stack([query[i] @ k / math.sqrt(rank) for k in key])
                attention = torch.softmax(logits, 0)
                mixed = sum(a * v for a, v in zip(attention, value, strict=True))
                attended[i] = attended[i] + out_weight[:, part] @ mixed
                if i == 0:
                    class_attention.append(attention)
                    class_heads.append(out_weight[:, part] @ mixed)
        tokens = [t + a for t, a in zip(tokens, attended, strict=True)]
        activations, written = [], []
        for token in tokens:
            x, _, _ = layer_norm(
                token, self.block(index, "ln_2.weight"), self.block(index, "ln_2.bias"),
                block.ln_2.eps,
            )  # fmt: skip
            hidden = self.block(index, "mlp.c_fc.weight") @ x + self.block(index, "mlp.c_fc.bias")
            activations.append(gelu(hidden, self.clip.activation == "quick_gelu"))
            written.append(
                self.block(index, "mlp.c_proj.weight") @ activations[-1]
                + self.block(index, "mlp.c_proj.bias")
            )
        self.blocks[index] = {
            "attention": class_attention, "means": means, "sigmas": sigmas, "normed": normed,
            "activations": activations, "class_heads": class_heads, "class_mlp": written[0],
        }  # fmt: skip
        return [t + m for t, m in zip(tokens, written, strict=True)]

    def second_order_effect(self, layer, neuron, shared_bias=False):
        """φ_n^l(I), summed over later layers, heads and tokens one at a time."""
        w, neurons = self.weights, self.clip.neurons
        column = self.block(layer, "mlp.c_proj.weight")[:, neuron]
        mlp_bias = self.block(layer, "mlp.c_proj.bias")
        width = len(column)
        rank = width // self.heads
        total = torch.zeros_like(self.representation)
        for later in range(layer + 1, self.layers):
            values = self.block(later, "attn.in_proj_weight")[2 * width :]
            value_bias = self.block(later, "attn.in_proj_bias")[2 * width :]
            out_weight = self.block(later, "attn.out_proj.weight")
            terms = (1 + 2 * later) * neurons
            post_terms = terms * (1 + 2 * self.layers) * self.heads
            for head in range(self.heads):
                part = slice(head * rank, (head + 1) * rank)
                read = torch.zeros_like(column)
                for i, attention in enumerate(self.blocks[later]["attention"][head]):
                    stream = self.blocks[layer]["activations"][i][neuron] * column
                    offset = torch.zeros_like(column)
                    if shared_bias:
                        stream = (
                            stream + mlp_bias / neurons - self.blocks[later]["means"][i] / terms
                        )
                        offset = self.block(later, "ln_1.bias") / terms
                    gain = self.block(later, "ln_1.weight") / self.blocks[later]["sigmas"][i]
                    read = read + attention * (gain * stream + offset)
                out = values[part] @ read
                if shared_bias:
                    out = out + value_bias[part] / terms
                out = out_weight[:, part] @ out
                constant = torch.zeros_like(column)
                if shared_bias:
                    share = self.block(later, "attn.out_proj.bias") / (terms * self.heads)
                    out = out + share - self.post_mean / post_terms
                    constant = w["ln_post.bias"] / post_terms
                total = total + (w["ln_post.weight"] * out / self.post_sigma + constant) @ w["proj"]
        return 100 / self.representation.norm() * total

    def first_order_effect(self, vector):
        """What a vector in the class token's final residual stream writes to the embedding."""
        w = self.weights
        return (w["ln_post.weight"] * (vector - vector.mean()) / self.post_sigma) @ w["proj"]


def principal_direction(effects, mean, k):
    """r_n and its explained variance from all dense effects of one unit, [image, embed]."""
    centred = effects - mean
    order = centred.norm(dim=1).argsort(descending=True)[:k]
    rows = centred[order]
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    component = right[0]
    if ((rows @ component) > 0).sum() < ((rows @ component) < 0).sum():
        component = -component
    return component, singular[0] ** 2 / (singular**2).sum(), order
