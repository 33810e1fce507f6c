"""Attention pooling as float64 loops over heads and positions (2509.19943, section 3)."""

import math

import torch


class NaivePooling:
    """What each channel of one image's last stage writes through each head of the pooling."""

    def __init__(self, clip, stage):
        """``stage`` is the last stage's output for one image, [neuron, height, width]."""
        self.heads = clip.heads
        self.weights = {n: p.double() for n, p in clip.visual.attnpool.state_dict().items()}
        spatial = stage.double().flatten(1).T
        tokens = [spatial.mean(0), *spatial]
        self.tokens = [
            t + p for t, p in zip(tokens, self.weights["positional_embedding"], strict=True)
        ]
        rank = len(self.tokens[0]) // self.heads
        query, *keys = self._project("q_proj", self.tokens[:1]) + self._project(
            "k_proj", self.tokens
        )
        values = self._project("v_proj", self.tokens)
        self.attention, mixed = [], []
        for head in range(self.heads):
            part = slice(head * rank, (head + 1) * rank)
            logits = torch.stack([query[part] @ key[part] / math.sqrt(rank) for key in keys])
            self.attention.append(torch.softmax(logits, 0))
            mixed.append(sum(a * v[part] for a, v in zip(self.attention[-1], values, strict=True)))
        (self.representation,) = self._project("c_proj", [torch.cat(mixed)])

    def _project(self, name, vectors):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return [weight @ vector + bias for vector in vectors]

    def contribution(self, neuron, head):
        """Σ_i a_i^h z_i^n (W_O^h W_V^h e_n), scaled to an embedding of norm 100."""
        rank = len(self.tokens[0]) // self.heads
        part = slice(head * rank, (head + 1) * rank)
        value = self.weights["v_proj.weight"][part, neuron]
        written = self.weights["c_proj.weight"][:, part] @ value
        total = torch.zeros_like(self.representation)
        for attention, token in zip(self.attention[head], self.tokens, strict=True):
            total = total + attention * token[neuron] * written
        return 100 / self.representation.norm() * total
