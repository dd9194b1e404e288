"""Bundles: a zip of one ONNX file and the files beside it that hold its weights, made into one ONNX file.

Members are copied one by one, in plain folders only, and no more bytes than one ONNX file may have.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import onnx

from worker.engine.data.archive import open_zip, safe_path
from worker.engine.errors import EngineError
from worker.engine.graph import load_bundle

MAX_MEMBERS = 20_000  # exporters write one file for each tensor at the most
_COPY_BYTES = 2**20


def join_bundle(archive: Path, folder: Path, max_bytes: int) -> onnx.ModelProto:
    """Unpack into `folder` and read the model with its weights.

    Raises EngineError where the archive is hostile or broken, has more than `max_bytes` unpacked, has none or several
    ONNX files, or lacks a file that the model names.
    """
    with open_zip(archive) as file:
        infos = [info for info in file.infolist() if not info.is_dir()]
        if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > max_bytes:
            raise EngineError(
                "too_large",
                f"The bundle has {len(infos)} files and {sum(info.file_size for info in infos)} bytes.",
                f"At most {MAX_MEMBERS} files and {max_bytes} bytes are read.",
            )
        paths = [folder / safe_path(info.filename) for info in infos]
        models = [path for path in paths if path.suffix.lower() == ".onnx"]
        if len(models) != 1:
            raise EngineError(
                "not_a_bundle",
                f"The zip holds {len(models)} files that end in .onnx.",
                "Pack one model: its .onnx file and the files of weights beside it.",
            )
        files = set(paths)
        if len(files) < len(paths) or any(parent in files for path in paths for parent in path.parents):
            raise EngineError(
                "unsafe_archive", "The archive was refused: two members have one path.", "Pack each file once."
            )
        for info, path in zip(infos, paths, strict=True):
            _unpack(file, info, path)
    return load_bundle(models[0])


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Write one member; zipfile itself never yields more bytes than the directory says it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as packed, path.open("xb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _COPY_BYTES)
