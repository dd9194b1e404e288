"""Decoding of single images, and their fit to a model's input."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from worker.engine.data.input_spec import InputSpec
from worker.engine.errors import EngineError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")
MAX_PIXELS = 50_000_000

# Everything that decoders raise on bytes that are no sound image.
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow


class UndecodableError(Exception):
    """Bytes that are no image we read; the message says why."""


def decode(content: bytes) -> np.ndarray:
    """An image file as uint8 (H, W, C) with C = 1 for grey, 4 with transparency, 3 otherwise."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UndecodableError(f"it has more than {MAX_PIXELS} pixels")
            return _pixels(image)
    except UnidentifiedImageError as error:
        raise UndecodableError(f"it is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from error
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise UndecodableError(f"it cannot be decoded: {error}") from error


def fit(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The image in the model's channels and size: grey is repeated, colour is weighed to grey, other sizes are
    resampled (bilinear, antialiased) without keeping the aspect ratio."""
    image = _with_channels(image, spec.channels or image.shape[2])
    height, width = spec.height or image.shape[0], spec.width or image.shape[1]
    return image if image.shape[:2] == (height, width) else _resized(image, height, width)


def channels_last(image: np.ndarray, channels: int | None) -> np.ndarray:
    """An array (C, H, W) as (H, W, C). A number of channels that files of images do not have tells only the model that
    takes them apart from a height."""
    foreign = channels is not None and channels not in _MODES
    return image.transpose(1, 2, 0) if foreign and image.shape[0] == channels != image.shape[2] else image


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[:, :, None]
    if image.mode in {"1", "L", "I", "F"}:
        return np.array(image.convert("L"))[:, :, None]
    has_alpha = image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info
    return np.array(image.convert("RGBA" if has_alpha else "RGB"))


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    present = image.shape[2]
    if present == channels:
        return image
    if channels not in _MODES or present not in _MODES:
        raise EngineError(
            "unsupported_channels",
            f"The model takes {channels} channels and the images have {present}.",
            "Upload an npz whose x has the model's channels.",
        )
    colour = image[:, :, :3] if present >= 3 else np.repeat(image, 3, axis=2)
    if channels == 1:
        grey = colour.astype(np.float32) @ _LUMINANCE
        return _like(image, grey)[:, :, None]
    if channels == 4:
        opaque = np.full_like(colour[:, :, :1], 255 if image.dtype == np.uint8 else 1)
        return np.concatenate([colour, opaque], axis=2)
    return np.ascontiguousarray(colour)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    size = (width, height)
    if image.dtype == np.uint8 and image.shape[2] in _MODES:
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).reshape(height, width, -1)
    planes = [
        np.asarray(Image.fromarray(image[:, :, c].astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        for c in range(image.shape[2])
    ]
    return _like(image, np.stack(planes, axis=2))


def _like(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8) if image.dtype == np.uint8 else values.astype(image.dtype)
