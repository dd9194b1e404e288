"""Attention and rotary embeddings as single ops (opset 23)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from worker.engine.torch_form.operation import Operation, Value
from worker.engine.torch_form.registry import Result, implements


@implements("Attention")
def attention(op: Operation) -> Result:
    if any(op.has(i) for i in (4, 5, 6)) or op.attribute("softcap", 0.0) or any(op.proto.output[1:]):
        raise op.unsupported("past keys, a soft cap, or outputs besides the first")
    heads = op.attribute("q_num_heads"), op.attribute("kv_num_heads")
    options = bool(op.attribute("is_causal", 0)), op.attribute("scale")
    return op.call(attend, op.tensor(0), op.tensor(1), op.tensor(2), op.optional(3), *heads, *options)


@implements("RotaryEmbedding")
def rotary_embedding(op: Operation) -> Value:
    options = (
        op.attribute("num_heads", 0),
        op.attribute("rotary_embedding_dim", 0),
        bool(op.attribute("interleaved", 0)),
    )
    return op.call(rotate, op.tensor(0), op.tensor(1), op.tensor(2), op.optional(3), *options)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    q_heads: int | None,
    kv_heads: int | None,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """q, k, v (B, heads, T, width), or (B, T, heads x width) with the numbers of heads given."""
    flat = q.dim() == 3
    if flat:
        q, k, v = _split_heads(q, q_heads), _split_heads(k, kv_heads), _split_heads(v, kv_heads)
    if causal and mask is not None:
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        mask = mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -torch.inf)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=causal and mask is None, scale=scale, enable_gqa=grouped
    )
    return out.transpose(1, 2).flatten(2) if flat else out


def rotate(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    heads: int,
    width: int,
    interleaved: bool,
) -> torch.Tensor:
    """x (B, heads, T, width) or (B, T, heads x width); cos and sin (positions, width / 2) or (B, T, width / 2)."""
    flat = x.dim() == 3
    x = _split_heads(x, heads) if flat else x
    if positions is not None:
        cos, sin = cos[positions.long()], sin[positions.long()]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (B, 1, T, width / 2)
    width = width or x.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    parts = a * cos - b * sin, a * sin + b * cos
    turned = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
    out = torch.cat([turned, rest], -1)
    return out.transpose(1, 2).flatten(2) if flat else out


def _split_heads(x: torch.Tensor, heads: int | None) -> torch.Tensor:
    """(B, T, heads x width) -> (B, heads, T, width)."""
    return x.reshape(*x.shape[:2], heads or 1, -1).transpose(1, 2)
