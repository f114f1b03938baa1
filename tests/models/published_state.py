"""State dicts in the layout of published checkpoints, small and with seeded weights."""

import torch


def state(
    width=16, heads=4, feedforward=24, stereo_layers=3, kernel=5, encoder=True, outputs=256, seed=0
) -> dict[str, torch.Tensor]:
    """Return every tensor of a published file; without ``encoder`` those of the real-time line."""
    shapes: dict[str, tuple[int, ...]] = {}
    if encoder:
        sizes = [(1, 10), (width, 8), (width, 4), (width, 4), (width, 4)]
        for i, (channels, length) in enumerate(sizes):
            shapes[f"encoder.encoder.gEncoder.conv{i}.weight"] = (width, channels, length)
            shapes[f"encoder.encoder.gEncoder.conv{i}.bias"] = (width,)
            shapes[f"encoder.encoder.gEncoder.batchNorm{i}.weight"] = (1, width, 1)
            shapes[f"encoder.encoder.gEncoder.batchNorm{i}.bias"] = (1, width, 1)
        for name, shape in (
            ("weight_ih", (4 * width, width)),
            ("weight_hh", (4 * width, width)),
            ("bias_ih", (4 * width,)),
            ("bias_hh", (4 * width,)),
        ):
            shapes[f"encoder.encoder.gAR.baseNet.{name}_l0"] = shape
    if kernel > 1:
        shapes["encoder.downsample.1.weight"] = (width, width, kernel)
        shapes["encoder.downsample.1.bias"] = (width,)
        shapes["encoder.downsample.2.ln.weight"] = shapes["encoder.downsample.2.ln.bias"] = (width,)
    layers = [("ar_channel.layers.0", ["mha"])]
    layers += [(f"ar.layers.{i}", ["mha", "mha_cross"]) for i in range(stereo_layers)]
    for name, attentions in layers:
        for norm in ("ln_self_attn", "ln_ffnetwork", "ln_src_attn")[: 1 + len(attentions)]:
            shapes[f"{name}.{norm}.weight"] = shapes[f"{name}.{norm}.bias"] = (width,)
        for attention in attentions:
            for part in ("query", "key", "value", "proj"):
                shapes[f"{name}.{attention}.{part}.weight"] = (width, width)
        shapes[f"{name}.ffnetwork.0.weight"] = (feedforward, width)
        shapes[f"{name}.ffnetwork.3.weight"] = (width, feedforward)
    shapes["ar.combinator.h0_a.weight"] = shapes["ar.combinator.h0_b.weight"] = (width, width)
    shapes["ar.combinator.ln.weight"] = shapes["ar.combinator.ln.bias"] = (width,)
    shapes |= {"va_classifier.weight": (1, width), "va_classifier.bias": (1,)}
    shapes |= {"vap_head.weight": (outputs, width), "vap_head.bias": (outputs,)}
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=generator)
        is_norm = "ln" in name or "Norm" in name
        tensors[name] = tensor / tensor[0].numel() ** 0.5 if len(shape) > 1 and not is_norm else tensor * 0.1
        if is_norm and name.endswith("weight"):
            tensors[name] += 1
    slopes = torch.tensor([2 ** (-8 * (i + 1) / heads) for i in range(heads)])
    for name, attentions in layers:
        tensors |= {f"{name}.{attention}.m": slopes for attention in attentions}
    bits = torch.tensor([[number >> place & 1 for place in range(8)] for number in range(256)])
    return tensors | {"objective.codebook.emb.weight": bits.float()}
