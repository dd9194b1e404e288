"""The outermost frame of an ONNX file: a protobuf message, walked from field to field without reading their contents.

Enough to tell an ONNX file from any other and a whole one from a cut one, in constant memory, however large the
weights are.
"""

from typing import BinaryIO

from app.uploads.errors import TruncatedFile, WrongFormat

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}

# onnx.ModelProto: field number -> wire type (onnx.proto3 of IR version 13). Numbers of later versions pass.
MODEL_FIELDS = {1: VARINT, 5: VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES)
GRAPH = 7
MAX_FIELDS = 100_000  # more than functions and metadata ever need; what lies beyond is left to the inspector
MAX_VARINT_BYTES = 10


def check_frame(file: BinaryIO, size_bytes: int) -> None:
    """Walk the top-level fields from the file's start.

    Raises WrongFormat where a field is none of ONNX's or no graph is among them, TruncatedFile where the file ends
    within a field.
    """
    file.seek(0)
    seen: list[int] = []
    while file.tell() < size_bytes and len(seen) < MAX_FIELDS:
        try:
            seen.append(_skip_field(file, size_bytes))
        except TruncatedFile:
            if not seen:  # one odd byte at the start is no sign of ONNX
                raise WrongFormat("The file does not begin like an ONNX model.") from None
            raise
    if GRAPH not in seen:
        raise WrongFormat("The file has no ONNX graph in it.")


def _skip_field(file: BinaryIO, size_bytes: int) -> int:
    """Move behind the next field; its number."""
    start = file.tell()
    number, wire_type = divmod(_varint(file), 8)
    if number == 0 or MODEL_FIELDS.get(number, wire_type) != wire_type:
        raise WrongFormat(f"The file is not an ONNX model: byte {start:,} begins no field of one.")
    if wire_type == VARINT:
        _varint(file)
        return number
    length = _varint(file) if wire_type == BYTES else FIXED_BYTES.get(wire_type)
    if length is None:
        raise WrongFormat(f"The file is not an ONNX model: byte {start:,} begins no field of one.")
    missing = file.tell() + length - size_bytes
    if missing > 0:
        raise TruncatedFile(f"The file ends {missing:,} bytes too early.")
    file.seek(length, 1)
    return number


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
        byte = file.read(1)
        if not byte:
            raise TruncatedFile("The file ends too early.")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise WrongFormat(f"The file is not an ONNX model: no number ends before byte {file.tell():,}.")
