"""The training's forward passes are open_clip's, and the penalty is its formula."""

import pytest
import torch

from research.mini_clip import forward, model


@pytest.fixture
def vit(monkeypatch):
    config = {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    monkeypatch.setitem(model.VISION, "vit", config)
    torch.manual_seed(0)
    return model.build("vit").visual.eval()


@pytest.fixture
def resnet(monkeypatch):
    config = {"image_size": 128, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    monkeypatch.setitem(model.VISION, "rn", config)
    torch.manual_seed(0)
    return model.build("rn").visual.eval()


def test_all_patches_are_the_plain_forward(vit, resnet):
    images = torch.randn(2 * forward.HEARD, 3, 64, 64)
    ours = forward.vit(vit, images, 2)[0]
    torch.testing.assert_close(ours, vit(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(forward.vit(vit, images)[0], ours, rtol=1e-4, atol=1e-4)
    images = torch.randn(2, 3, 128, 128)
    torch.testing.assert_close(forward.resnet(resnet, images), resnet(images), rtol=1e-4, atol=1e-4)


def test_smaller_images_and_fewer_patches_keep_the_shape(vit, resnet):
    many = 2 * forward.HEARD
    assert forward.vit(vit, torch.randn(many, 3, 32, 32), 2)[0].shape == (many, 128)
    assert forward.vit(vit, torch.randn(many, 3, 64, 64), 2, keep=5)[0].shape == (many, 128)
    assert forward.resnet(resnet, torch.randn(2, 3, 64, 64)).shape == (2, 128)


def shown(vit, final, part):
    """A part of the class token, as the normalised embedding shows it: float64, a loop."""
    rows, out = [], []
    norm, proj = vit.ln_post, vit.proj.detach().double()
    for token, mine in zip(final.detach().double(), part.detach().double(), strict=True):
        sigma = (token.var(unbiased=False) + norm.eps).sqrt()
        weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
        whole = ((token - token.mean()) / sigma * weight + bias) @ proj
        rows.append(((mine - mine.mean()) / sigma * weight) @ proj / whole.norm())
        out.append(whole / whole.norm())
    return torch.stack(rows).var(0).sum().item(), torch.stack(out).var(0).sum().item()


def recorded(vit, images):
    """What is written into all tokens of a ViT on the way: by attention, by MLPs; the stream before
    the first block and before the last; the final class token."""
    attended, written, streams, hooks = [], [], [], []
    for block in vit.transformer.resblocks:
        hooks.append(block.mlp.register_forward_hook(lambda m, i, o: written.append(o)))
        hooks.append(block.attn.register_forward_hook(lambda m, i, o: attended.append(o[0])))
    keep = [(vit.ln_pre, 1), (block.ln_1, 0), (vit.ln_post, 0)]
    for norm, after in keep:
        hooks.append(
            norm.register_forward_hook(
                lambda m, i, o, after=after: streams.append(o if after else i[0])
            )
        )
    vit(images)
    for hook in hooks:
        hook.remove()
    final = streams[2]
    return attended, written, streams[:2], final if final.ndim == 2 else final[:, 0]


def test_the_first_penalty_is_what_is_written_before_listening(vit):
    for norm in (vit.ln_post, *(b.ln_1 for b in vit.transformer.resblocks)):
        torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    images = torch.randn(6, 3, 64, 64)
    attended, written, _, final = recorded(vit, images)
    parts = [part[:, 0] for part in (*written, *attended[:2])]
    found = [shown(vit, final, part) for part in parts]
    _, penalty, _ = forward.vit(vit, images, 2)
    assert penalty.item() == pytest.approx(sum(p for p, _ in found) / found[0][1], rel=1e-3)


def test_what_is_heard_is_a_loop_over_heads_and_tokens(vit):
    block = vit.transformer.resblocks[1].double()
    for parameter in block.ln_1.parameters():
        torch.nn.init.normal_(parameter)
    generator = torch.Generator().manual_seed(0)
    tokens, part = torch.randn(2, 2, 5, 32, generator=generator, dtype=torch.float64)
    found = forward.heard(block, tokens, [part])
    normed, heads = block.ln_1(tokens), block.attn.num_heads
    wq, wk, wv = (w.view(heads, -1, 32) for w in block.attn.in_proj_weight.chunk(3))
    bq, bk, _ = (b.view(heads, -1) for b in block.attn.in_proj_bias.chunk(3))
    for image in range(2):
        joined = []
        for head in range(heads):
            query = wq[head] @ normed[image, 0] + bq[head]
            keys = [wk[head] @ token + bk[head] for token in normed[image]]
            weights = torch.softmax(torch.stack([query @ key / 4 for key in keys]), 0)  # 4 = √16
            heard = 0.0
            for token, weight in enumerate(weights):
                sigma = (tokens[image, token].var(unbiased=False) + block.ln_1.eps).sqrt()
                centred = part[image, token] - part[image, token].mean()
                heard = heard + weight * (wv[head] @ (centred / sigma * block.ln_1.weight))
            joined.append(heard)
        wanted = block.attn.out_proj.weight @ torch.cat(joined)
        torch.testing.assert_close(found[0, image], wanted)
    # Of the whole stream, it is what the attention writes but for a constant.
    written = block.attention(q_x=normed)[:, 0] - forward.heard(block, tokens, [tokens])[0]
    torch.testing.assert_close(written[0], written[1])


def test_the_second_penalty_is_what_is_heard_besides_later_mlps_part_by_part(monkeypatch):
    config = {"image_size": 64, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8}
    monkeypatch.setitem(model.VISION, "vit", config)
    torch.manual_seed(0)
    vit = model.build("vit").visual.eval()
    blocks = vit.transformer.resblocks
    for block in blocks:
        torch.nn.init.normal_(block.mlp.c_proj.bias)
    images = torch.randn(6 * forward.HEARD, 3, 64, 64)
    asked = images[:: forward.HEARD]
    attended, written, (stream, before), final = recorded(vit, asked)
    heard, parts = [0.0, 0.0, 0.0, 0.0], [0.0, stream]
    for index in (1, 2, 3):
        stream = stream + attended[index - 1] + written[index - 1]
        parts[0] = parts[0] + attended[index - 1]
        if index < 3:  # the later half's MLPs are what it may hear
            parts.append(written[index - 1] - blocks[index - 1].mlp.c_proj.bias)
        for place, part in enumerate(parts):
            heard[place] += forward.heard(blocks[index], stream, [part])[0]
    torch.testing.assert_close(stream, before, rtol=1e-4, atol=1e-4)
    found = [shown(vit, final, part) for part in heard]
    wanted = sum(part for part, _ in found) / found[0][1]
    assert forward.vit(vit, images, 3)[2].item() == pytest.approx(wanted, rel=1e-2)
    assert forward.vit(vit, images)[1:] == (0, 0)


def test_the_copy_takes_weights_and_gives_gradients():
    layer = torch.nn.Linear(4, 4)
    copy = forward.BFloat16Copy(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    copy.refresh()
    torch.testing.assert_close(copy.work.weight.float(), layer.weight, rtol=1e-2, atol=1e-2)
    copy.work(torch.ones(3, 4, dtype=torch.bfloat16)).sum().backward()
    copy.gradients()
    torch.testing.assert_close(layer.weight.grad, torch.full((4, 4), 3.0))
    assert copy.work.weight.grad is None
