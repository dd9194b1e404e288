"""Names of ONNX values as attribute paths of a torch module, one to one.

State-dict names ("layer1.0.conv1.weight") are their own path: each dotted part becomes a nested module. Every other
name ("conv1/kernel:0", "489", "") becomes one attribute below `encoded`, each character that is not an ASCII letter or
digit written as its hexadecimal code point between underscores: "conv1/kernel:0" <-> "encoded.n_conv1_2f_kernel_3a_0".
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from torch import fx, nn

ENCODED = "encoded"
_PART = re.compile(r"[A-Za-z0-9_]+")
_PLAIN_CHARACTER = re.compile(r"[A-Za-z0-9]")
_RESERVED = (
    frozenset(dir(fx.GraphModule)) | frozenset(vars(fx.GraphModule(nn.Module(), fx.Graph()))) | {ENCODED, "self"}
)


def attribute_paths(names: Iterable[str]) -> dict[str, str]:
    """Each name's path. A module has no room for a tensor "a" beside a tensor "a.b": there, "a" is encoded."""
    names = list(names)
    prefixes = {name[:at] for name in names for at, character in enumerate(name) if character == "."}
    return {name: name if _is_state_dict_name(name) and name not in prefixes else encode(name) for name in names}


def encode(name: str) -> str:
    """The path of a name that cannot be its own."""
    return f"{ENCODED}.n_" + "".join(c if _PLAIN_CHARACTER.fullmatch(c) else f"_{ord(c):x}_" for c in name)


def _is_state_dict_name(name: str) -> bool:
    return all(
        _PART.fullmatch(part) and part not in _RESERVED and not keyword.iskeyword(part) for part in name.split(".")
    )
