"""Uploads made by code: archives of small images, and npz files."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(colour, size=(8, 6), kind="PNG", mode="RGB"):
    """An image file of one colour; size is (width, height)."""
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)
    return buffer.getvalue()


def pictures(folders, count, **options):
    """`count` different images in each folder, as path -> content."""
    return {
        f"{folder}/{index}.png": picture((index * 7 % 256, hash(folder) % 97, 40), **options)
        for folder in folders
        for index in range(count)
    }


def tar_of(path: Path, files, mode="w:xz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def npz_of(path: Path, **arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path
