"""Any family's blocks and pooling as float64 loops, written from the formulas of the design.

Nothing is shared with the library: weights are read from the modules by their own names. Slow and
literal on purpose.
"""

import math

import torch
from torch import nn

from tests.helpers.naive import gelu


class Weights:
    """A linear layer's weight and bias, float64, possibly of a slice of it."""

    def __init__(self, weight, bias=None):
        self.weight = weight.double()
        self.bias = torch.zeros(len(weight)).double() if bias is None else bias.double()

    def __call__(self, x):
        return self.weight @ x + self.bias


def norm_of(module):
    """(x) -> normalised x, mean, sigma; and its weight and bias."""
    return Normed(module)


class Normed:
    def __init__(self, module):
        self.none = module is None or isinstance(module, nn.Identity)
        if not self.none:
            self.weight, self.bias = module.weight.double(), module.bias.double()
            self.eps = module.eps

    def sigma(self, x):
        return 1.0 if self.none else math.sqrt(((x - x.mean()) ** 2).mean() + self.eps)

    def __call__(self, x):
        return x if self.none else (x - x.mean()) / self.sigma(x) * self.weight + self.bias

    def rest(self, constant, x):
        """What comes out of a constant and of no other part of x: bias and x's mean included."""
        return constant if self.none else self.gain(constant - x.mean()) / self.sigma(x) + self.bias

    def gain(self, x):
        """The norm's gain alone: its linear part, but for 1/sigma and the mean."""
        return x if self.none else self.weight * x


def thirds(weight, bias):
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return [Weights(w, b) for w, b in zip(weight.chunk(3), biases, strict=True)]


class Part:
    """Weights of one block, by the names that its library gives them."""

    def __init__(self, block):
        self.scales = [1.0, 1.0]
        self.outer, self.mlp_outer = Normed(None), Normed(None)
        if hasattr(block, "ln_1"):  # open_clip
            a, m = block.attn, block.mlp
            self.norm1, self.norm2 = Normed(block.ln_1), Normed(block.ln_2)
            self.qkv = thirds(a.in_proj_weight, a.in_proj_bias)
            self.out, self.heads = Weights(a.out_proj.weight, a.out_proj.bias), a.num_heads
            self.fc1, self.fc2 = (Weights(p.weight, p.bias) for p in (m.c_fc, m.c_proj))
            scales = (getattr(s, "gamma", None) for s in (block.ls_1, block.ls_2))
            self.inner, self.mlp_inner, self.gate = Normed(None), Normed(None), None
        elif hasattr(block, "self_attn"):  # transformers
            a, m = block.self_attn, block.mlp
            self.norm1, self.norm2 = Normed(block.layer_norm1), Normed(block.layer_norm2)
            self.qkv = [Weights(p.weight, p.bias) for p in (a.q_proj, a.k_proj, a.v_proj)]
            self.out, self.heads = Weights(a.out_proj.weight, a.out_proj.bias), a.num_heads
            self.fc1, self.fc2 = (Weights(p.weight, p.bias) for p in (m.fc1, m.fc2))
            scales = (None, None)
            self.inner, self.mlp_inner, self.gate = Normed(None), Normed(None), None
        else:  # timm
            a, m = block.attn, block.mlp
            self.norm1, self.norm2 = Normed(block.norm1), Normed(block.norm2)
            if type(block).__name__ == "EvaBlockPostNorm":
                self.outer, self.mlp_outer = self.norm1, self.norm2
                self.norm1, self.norm2 = Normed(None), Normed(None)
            if a.qkv is None:
                self.qkv = [Weights(p.weight, p.bias) for p in (a.q_proj, a.k_proj, a.v_proj)]
            elif getattr(a, "q_bias", None) is not None:
                bias = torch.cat([a.q_bias, torch.zeros_like(a.q_bias), a.v_bias])
                self.qkv = thirds(a.qkv.weight, bias)
            else:
                self.qkv = thirds(a.qkv.weight, a.qkv.bias)
            self.out, self.heads = Weights(a.proj.weight, a.proj.bias), a.num_heads
            self.inner, self.mlp_inner = Normed(a.norm), Normed(m.norm)
            self.fc2 = Weights(m.fc2.weight, m.fc2.bias)
            gated = hasattr(m, "fc1_g")
            self.fc1 = Weights(
                (m.fc1_x if gated else m.fc1).weight, (m.fc1_x if gated else m.fc1).bias
            )
            self.gate = Weights(m.fc1_g.weight, m.fc1_g.bias) if gated else None
            if hasattr(block, "ls1"):
                scales = (getattr(s, "gamma", None) for s in (block.ls1, block.ls2))
            else:
                scales = (getattr(block, name, None) for name in ("gamma_1", "gamma_2"))
        self.scales = [1.0 if s is None else s.double() for s in scales]


class NaiveTower:
    """A forward pass of one image, from the tokens that enter the first block.

    ``pool`` is ("token", norm, post), ("mean", first, norm, post) or ("probe", first, norm, query,
    key, value, out, heads, post, mlp_norm, fc1, fc2); ``rope`` are sines and cosines ``[patch,
    2 · rank]`` of the tokens after the ``prefix``.
    """

    def __init__(self, blocks, start, pool, projection, activation="gelu", rope=None, prefix=1):
        self.parts = [Part(block) for block in blocks]
        self.activation, self.rope, self.prefix = activation, rope, prefix
        self.kind, *self.pool = pool
        self.projection = projection
        tokens = [t.double() for t in start]
        self.start, self.blocks = tokens, []
        for part in self.parts:
            tokens = self._block(part, tokens)
        self.final = tokens
        self._read_out()

    def act(self, x):
        if self.activation == "gelu_tanh":
            return nn.functional.gelu(x, approximate="tanh")
        return gelu(x, self.activation == "quick_gelu")

    def _turn(self, x, i):
        """Rotary embedding of a query or key: neighbouring coordinates turn in pairs."""
        if self.rope is None or i < self.prefix:
            return x
        sine, cosine = self.rope[i - self.prefix].double().chunk(2)
        turned = torch.empty_like(x)
        for k in range(0, len(x), 2):
            turned[k] = x[k] * cosine[k] - x[k + 1] * sine[k]
            turned[k + 1] = x[k + 1] * cosine[k + 1] + x[k] * sine[k + 1]
        return turned

    def _block(self, part, tokens):
        normed = [part.norm1(t) for t in tokens]
        sigmas = [part.norm1.sigma(t) for t in tokens]
        query, key, value = ([w(x) for x in normed] for w in part.qkv)
        rank = len(value[0]) // part.heads
        attention, joined = [], [[] for _ in tokens]
        for head in range(part.heads):
            at = slice(head * rank, (head + 1) * rank)
            turned = [self._turn(k[at], i) for i, k in enumerate(key)]
            rows = []
            for j in range(len(tokens)):
                q = self._turn(query[j][at], j)
                logits = torch.stack([q @ k / math.sqrt(rank) for k in turned])
                rows.append(torch.softmax(logits, 0))
                joined[j].append(sum(a * v[at] for a, v in zip(rows[-1], value, strict=True)))
            attention.append(rows)
        mixed = [torch.cat(parts) for parts in joined]
        inner = [part.inner.sigma(m) for m in mixed]
        raw = [part.scales[0] * part.out(part.inner(m)) for m in mixed]
        attended, outer = [part.outer(r) for r in raw], [part.outer.sigma(r) for r in raw]
        middle = [t + a for t, a in zip(tokens, attended, strict=True)]
        activations, mlp_raw = [], []
        for t in middle:
            x = part.norm2(t)
            p = part.fc1(x)
            p = self.act(p) if part.gate is None else nn.functional.silu(part.gate(x)) * p
            activations.append(p)
            mlp_raw.append(part.scales[1] * part.fc2(part.mlp_inner(p)))
        written = [part.mlp_outer(r) for r in mlp_raw]
        self.blocks.append(dict(
            attention=attention, sigmas=sigmas, inner=inner, activations=activations,
            mlp_inner=[part.mlp_inner.sigma(p) for p in activations], attended=attended,
            written=written, outer=outer, mlp_raw=mlp_raw,
        ))  # fmt: skip
        return [m + w for m, w in zip(middle, written, strict=True)]

    def _read_out(self):
        tokens = self.final
        if self.kind == "token":
            norm, self.post = self.pool
            self.reading = {0: 1.0 / norm.sigma(tokens[0])}
            vector = norm(tokens[0])
        elif self.kind == "mean":
            first, norm, self.post = self.pool
            count = len(tokens) - first
            self.reading = {j: 1 / count / norm.sigma(tokens[j]) for j in range(first, len(tokens))}
            vector = sum(norm(t) for t in tokens[first:]) / count
        else:
            first, norm, query, key, value, out, heads, self.post, mlp_norm, fc1, fc2 = self.pool
            rank = len(query) // heads
            normed = [norm(t) for t in tokens[first:]]
            parts, self.probe = [], []
            for head in range(heads):
                at = slice(head * rank, (head + 1) * rank)
                logits = [query[at] @ key(x)[at] / math.sqrt(rank) for x in normed]
                row = torch.softmax(torch.stack(logits), 0)
                self.probe.append(row)
                parts.append(sum(a * value(x)[at] for a, x in zip(row, normed, strict=True)))
            vector = out(torch.cat(parts))
        self.norm = norm
        self.post_sigma = self.post.sigma(vector)
        vector = self.post(vector)
        self.pooled, self.pool_hidden = vector, None
        if self.kind == "probe" and fc1 is not None:
            self.pool_hidden = self.act(fc1(mlp_norm(vector)))
            vector = vector + fc2(self.pool_hidden)
        self.representation = self.projection(vector)

    def to_embedding(self, vector):
        """A part of the pooled vector, before the norm after the pooling, in the embedding."""
        return self.projection.weight @ (self.post.gain(vector) / self.post_sigma)

    def _stream(self, layer, i, neuron):
        """What a neuron writes to token i."""
        part, block = self.parts[layer], self.blocks[layer]
        p = block["activations"][i][neuron] / block["mlp_inner"][i]
        p = p if part.mlp_inner.none else p * part.mlp_inner.weight[neuron]
        written = part.scales[1] * part.fc2.weight[:, neuron] * p
        return part.mlp_outer.gain(written) / part.mlp_outer.sigma(block["mlp_raw"][i])

    def effect(self, layer, neuron):
        """The neuron's effect, summed over heads and tokens one at a time."""
        total = torch.zeros_like(self.representation)
        if self.kind == "probe" and layer == len(self.parts):
            column = self.pool[-1].weight[:, neuron] * self.pool_hidden[neuron]
            total = self.projection.weight @ column
        elif self.kind == "probe":
            first, _, _, _, value, out, heads = self.pool[:7]
            rank = len(value.weight) // heads
            for head in range(heads):
                at = slice(head * rank, (head + 1) * rank)
                for i, a in enumerate(self.probe[head], start=first):
                    x = self.norm.gain(self._stream(layer, i, neuron))
                    x = x / self.norm.sigma(self.final[i])
                    total = total + a * self.to_embedding(
                        out.weight[:, at] @ (value.weight[at] @ x)
                    )
        else:
            for later in range(layer + 1, len(self.parts)):
                part, block = self.parts[later], self.blocks[later]
                rank = len(part.qkv[2].weight) // part.heads
                for head in range(part.heads):
                    at = slice(head * rank, (head + 1) * rank)
                    read = 0.0
                    for j, weight in self.reading.items():
                        for i, a in enumerate(block["attention"][head][j]):
                            x = part.norm1.gain(self._stream(layer, i, neuron))
                            x = x / block["sigmas"][i] / block["inner"][j] / block["outer"][j]
                            read = read + weight * a * x
                    value = part.qkv[2].weight[at] @ read
                    gain = 1.0 if part.inner.none else part.inner.weight[at]
                    written = part.scales[0] * (part.out.weight[:, at] @ (gain * value))
                    written = part.outer.gain(written)
                    total = total + self.to_embedding(self.norm.gain(written))
        return 100 / self.representation.norm() * total

    def remainder(self):
        """Of a probe: what is no neuron's. Blocks' attention, the patches, biases and means."""
        first, _, _, _, value, out, heads = self.pool[:7]
        fc2 = self.pool[-1]
        rank = len(value.weight) // heads
        vector = out.bias.clone()
        for head in range(heads):
            at = slice(head * rank, (head + 1) * rank)
            for i, a in enumerate(self.probe[head], start=first):
                rest = self.start[i] + sum(block["attended"][i] for block in self.blocks)
                for part, block in zip(self.parts, self.blocks, strict=True):
                    constant = part.scales[1] * part.fc2.bias
                    rest = rest + part.mlp_outer.rest(constant, block["mlp_raw"][i])
                # The mean over all that is in the token, the neurons' part included.
                rest = rest - self.final[i].mean()
                x = self.norm.gain(rest) / self.norm.sigma(self.final[i]) + self.norm.bias
                vector = vector + a * (out.weight[:, at] @ (value.weight[at] @ x + value.bias[at]))
        if fc2 is not None:
            vector = vector + fc2.bias
        return 100 / self.representation.norm() * self.projection(vector)
