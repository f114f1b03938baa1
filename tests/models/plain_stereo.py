"""The stereo model read from its definition, step by step: loops over channels and heads, masks written out.

It shares no code with the package. Weights are a published state dict; numbers are float64, but for
the weights of the attention.
"""

import math

import numpy as np
from scipy.special import erf, log_softmax


def gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def layer_norm(x, weights, name):
    mean = x.mean(-1, keepdims=True)
    deviation = np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
    return (x - mean) / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def downsample(features, weights, stride):
    """One output frame at a time: its kernel ends at its first input frame."""
    kernel = weights["encoder.downsample.1.weight"]  # (out, in, k)
    size = kernel.shape[2]
    padded = np.concatenate([np.zeros((size - 1, features.shape[1])), features])
    rows = []
    for start in range(0, len(features), stride):
        window = padded[start : start + size]  # (k, in)
        rows.append(np.einsum("oik,ki->o", kernel, window) + weights["encoder.downsample.1.bias"])
    return gelu(layer_norm(np.stack(rows), weights, "encoder.downsample.2.ln"))


def attention(query_input, key_value_input, weights, name, heads, context=None):
    frames, width = query_input.shape
    q = query_input @ weights[f"{name}.query.weight"].T
    k = key_value_input @ weights[f"{name}.key.weight"].T
    v = key_value_input @ weights[f"{name}.value.weight"].T
    outputs = np.empty((frames, width))
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        slope = 2.0 ** (-8 * (head + 1) / heads)
        for start in range(0, frames, 250):  # some queries at a time, and no key after the last of them
            end = min(start + 250, frames)
            i, j = np.arange(start, end)[:, None], np.arange(end)[None]
            scores = q[start:end, part] @ k[:end, part].T / math.sqrt(width) + slope * j
            scores = np.where((j <= i) & (j > i - (context or frames)), scores, -np.inf)
            weight = np.exp((scores - scores.max(1, keepdims=True)).astype(np.float32))
            outputs[start:end, part] = weight / weight.sum(1, keepdims=True) @ v[:end, part]
    return outputs @ weights[f"{name}.proj.weight"].T


def feed_forward(x, weights, name):
    inner = layer_norm(x, weights, f"{name}.ln_ffnetwork") @ weights[f"{name}.ffnetwork.0.weight"].T
    return x + gelu(inner) @ weights[f"{name}.ffnetwork.3.weight"].T


def outputs(state, features, stride, heads=4, context=None, activity_after="last"):
    """Return logits (T, 256) and voice-activity logits (T, 2) of features (2, frames at 100 Hz, dim)."""
    weights = {name: tensor.double().numpy() for name, tensor in state.items()}
    channels = [channel.double().numpy() for channel in features]
    if "encoder.downsample.1.weight" in weights:
        channels = [downsample(channel, weights, stride) for channel in channels]
    name = "ar_channel.layers.0"
    for c in (0, 1):
        normed = layer_norm(channels[c], weights, f"{name}.ln_self_attn")
        channels[c] = channels[c] + attention(normed, normed, weights, f"{name}.mha", heads, context)
        channels[c] = feed_forward(channels[c], weights, name)
    first = list(channels)
    i = 0
    while f"ar.layers.{i}.mha.query.weight" in weights:
        name, before = f"ar.layers.{i}", list(channels)
        for c in (0, 1):
            x = before[c]
            normed = layer_norm(x, weights, f"{name}.ln_self_attn")
            x = x + attention(normed, normed, weights, f"{name}.mha", heads, context)
            query = layer_norm(x, weights, f"{name}.ln_src_attn")
            x = x + attention(query, before[1 - c], weights, f"{name}.mha_cross", heads, context)
            channels[c] = feed_forward(x, weights, name)
        i += 1
    joint = 0
    for channel, letter in zip(channels, "ab", strict=True):
        projected = channel @ weights[f"ar.combinator.h0_{letter}.weight"].T
        joint = joint + gelu(layer_norm(projected, weights, "ar.combinator.ln"))
    logits = joint @ weights["vap_head.weight"].T + weights["vap_head.bias"]
    read = first if activity_after == "first" else channels
    activity = [x @ weights["va_classifier.weight"].T + weights["va_classifier.bias"] for x in read]
    return logits, np.concatenate(activity, axis=1)


def near_future(logits):
    """Return p_now, p_future (T, 2) and the entropy (T,), a class at a time."""
    p = np.exp(log_softmax(logits, axis=-1))
    sums = {"now": np.zeros((len(p), 2)), "future": np.zeros((len(p), 2))}
    for number in range(256):
        bits = [number >> place & 1 for place in range(8)]
        for speaker in (0, 1):
            sums["now"][:, speaker] += p[:, number] * sum(bits[4 * speaker : 4 * speaker + 2])
            sums["future"][:, speaker] += p[:, number] * sum(bits[4 * speaker + 2 : 4 * speaker + 4])
    now, future = (s / (s.sum(1, keepdims=True) + 1e-5) for s in (sums["now"], sums["future"]))
    return now, future, -(p * np.log2(p)).sum(1)
