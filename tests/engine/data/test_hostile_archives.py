"""Archives that mean harm are refused before they cost anything."""

import io
import resource
import stat
import tarfile
import zipfile

import pytest

from tests.engine.data.uploads import picture, pictures, tar_of, zip_of
from worker.engine.data import archive, inspect_dataset
from worker.engine.errors import EngineError


def code_of(path):
    with pytest.raises(EngineError) as caught:
        inspect_dataset(path)
    return caught.value.code


@pytest.mark.parametrize(
    "name", ["../cat/0.png", "cat/../../0.png", "/etc/cat/0.png", "c:/cat/0.png", "cat\\..\\0.png"]
)
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_paths_that_lead_out(tmp_path, name, pack):
    files = pictures(["cat", "dog"], 3) | {name: picture((0, 0, 0))}
    assert code_of(pack(tmp_path / "u", files)) == "unsafe_archive"
    assert [p.name for p in tmp_path.iterdir()] == ["u"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(tmp_path, kind):
    path = tmp_path / "u"
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo("cat/0.png")
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
    assert code_of(path) == "unsafe_archive"


def test_links_in_zip(tmp_path):
    path = tmp_path / "u"
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo("cat/0.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    assert code_of(path) == "unsafe_archive"


def test_a_bomb_of_zeros(tmp_path, monkeypatch):
    """The declared sizes alone decide: what they add up to is never decompressed."""
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 2**20)
    files = {f"cat/{i}.bmp": bytes(2**18) for i in range(20)}
    assert code_of(tar_of(tmp_path / "u", files)) == "archive_too_large"
    assert code_of(zip_of(tmp_path / "v", files)) == "archive_too_large"


def test_an_implausible_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "RATIO_FLOOR_BYTES", 2**20)
    files = {f"cat/{i}.bmp": bytes(2**20) for i in range(4)}
    assert code_of(tar_of(tmp_path / "u", files)) == "archive_too_large"


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    assert code_of(tar_of(tmp_path / "u", {f"cat/{i}": b"" for i in range(101)})) == "archive_too_large"


def test_a_zip_directory_that_claims_to_be_huge(tmp_path):
    path = zip_of(tmp_path / "u", pictures(["cat", "dog"], 2))
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x05\x06")
    content[at + 12 : at + 16] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    assert code_of(path) == "archive_too_large"


def test_an_extended_header_that_claims_gigabytes(tmp_path):
    """tarfile reads such a header into memory at once; the stream refuses it."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 8 * 2**30
    path = tmp_path / "u"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert code_of(path) == "archive_too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_an_oversized_member_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 4096)
    files = pictures(["cat", "dog"], 3) | {"cat/large.bmp": bytes(5000)}
    for pack in (tar_of, zip_of):
        facts = inspect_dataset(pack(tmp_path / pack.__name__, files))
        assert facts.bad_file_count == 1
        assert "larger than" in facts.bad_files[0]


def test_encrypted_members_are_left_out(tmp_path):
    path = zip_of(tmp_path / "u", pictures(["cat", "dog"], 3))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        content[at + offset] |= 1
    path.write_bytes(content)
    facts = inspect_dataset(path)
    assert facts.bad_files == ("cat/0.png: it is encrypted",)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_with_too_many_pixels_is_left_out(tmp_path):
    """A PNG of a few kilobytes that would decode to gigabytes."""
    bomb = io.BytesIO(picture(0, size=(12_000, 12_000), mode="1"))
    files = pictures(["cat", "dog"], 3) | {"cat/bomb.png": bomb.getvalue()}
    facts = inspect_dataset(zip_of(tmp_path / "u", files))
    assert facts.bad_file_count == 1
    assert "pixels" in facts.bad_files[0]
