"""The blob store, on a local folder and over the S3 protocol."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from models_store import blobs as blobs_module
from models_store.blobs import BlobStore
from models_store.errors import BlobCorrupt, BlobMissing, BlobsUnavailable
from models_store.settings import StoreSettings
from tests.unit.store.s3_server import running

CONTENT = bytes(range(256)) * 50_000  # 12.8 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
KEY = f"sha256/{DIGEST[:2]}/{DIGEST}"
ABSENT = f"sha256/00/{'0' * 64}"


@pytest.fixture
def s3(monkeypatch):
    with running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> BlobStore:
    if request.param == "folder":
        return BlobStore(str(tmp_path / "blobs"))
    request.getfixturevalue("s3")
    return BlobStore("s3://bucket/some/prefix", tmp_path / "incoming")


@pytest.fixture
def local(tmp_path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


def visible(store: BlobStore) -> list[str]:
    return [key for key in (KEY, ABSENT) if store.exists(key)]


class TestPut:
    def test_a_blob_is_named_by_its_bytes(self, store, source):
        blob = store.put_file(source)
        assert (blob.key, blob.sha256, blob.size_bytes) == (KEY, DIGEST, len(CONTENT))
        assert b"".join(store.stream(blob.key)) == CONTENT
        assert store.size(blob.key) == len(CONTENT)
        assert source.read_bytes() == CONTENT
        assert list(store.incoming_dir.iterdir()) == []

    def test_the_same_bytes_twice_are_one_blob(self, store, source):
        assert store.put_file(source) == store.put_file(source)
        assert visible(store) == [KEY]

    def test_an_empty_file(self, store, tmp_path):
        (tmp_path / "empty").touch()
        blob = store.put_file(tmp_path / "empty")
        assert (blob.sha256, blob.size_bytes) == (hashlib.sha256().hexdigest(), 0)
        assert list(store.stream(blob.key)) == []
        store.fetch(blob.key, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b""

    @pytest.mark.parametrize("already", [False, True])
    def test_an_upload_is_adopted(self, store, source, already):
        if already:
            store.put_file(source)
        upload = store.incoming_dir / "upload"
        source.rename(upload)
        assert store.adopt(upload).key == KEY
        assert not upload.exists()
        assert b"".join(store.stream(KEY)) == CONTENT

    def test_only_incoming_files_are_adopted(self, store, source):
        with pytest.raises(ValueError, match="use put_file"):
            store.adopt(source)
        assert source.exists()

    def test_a_missing_source(self, store, tmp_path):
        with pytest.raises(FileNotFoundError):
            store.put_file(tmp_path / "nothing")

    def test_racing_puts_of_the_same_bytes(self, local, source):
        gate = threading.Barrier(6)
        failures = []

        def put():
            gate.wait()
            try:
                local.put_file(source)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=put) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert b"".join(local.stream(KEY)) == CONTENT

    def test_a_large_file_goes_to_s3_in_parts(self, s3, source, tmp_path, monkeypatch):
        monkeypatch.setattr(blobs_module, "UPLOAD_PART_BYTES", 5 * 1024 * 1024)
        store = BlobStore("s3://bucket/prefix/", tmp_path / "incoming")
        store.put_file(source)
        assert s3.objects == {f"bucket/prefix/{KEY}": CONTENT}
        assert len([request for request in s3.requests if "partNumber" in request]) == 3

    def test_memory_stays_constant(self, local, source, monkeypatch):
        """Peak of Python's own allocations; a store that read the file whole would need 12.8 MB."""
        monkeypatch.setattr(blobs_module, "CHUNK_BYTES", 256 * 1024)
        tracemalloc.start()
        local.put_file(source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * 1024 * 1024


class TestRead:
    @pytest.mark.parametrize(
        ("start", "end"), [(0, 1), (0, 0), (255, 258), (0, None), (12_799_999, None), (5_000_000, 12_800_000)]
    )
    def test_a_range(self, store, source, start, end):
        store.put_file(source)
        assert b"".join(store.stream(KEY, start, end)) == CONTENT[start:end]

    @pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 12_800_001), (12_800_001, None)])
    def test_a_range_outside_the_blob(self, store, source, start, end):
        store.put_file(source)
        with pytest.raises(ValueError, match="not within the 12800000 bytes"):
            store.stream(KEY, start, end)

    def test_chunks_are_bounded(self, local, source, monkeypatch):
        monkeypatch.setattr(blobs_module, "CHUNK_BYTES", 1024 * 1024)
        local.put_file(source)
        assert {len(chunk) for chunk in local.stream(KEY)} == {1024 * 1024, len(CONTENT) % (1024 * 1024)}

    def test_fetch_writes_a_copy(self, store, source, tmp_path):
        store.put_file(source)
        copy = tmp_path / "copy"
        store.fetch(KEY, copy)
        assert copy.read_bytes() == CONTENT
        copy.write_bytes(b"changed by a child process")
        assert b"".join(store.stream(KEY)) == CONTENT

    def test_what_is_not_there(self, store, tmp_path):
        for read in (store.size, store.stream, lambda key: store.fetch(key, tmp_path / "copy")):
            with pytest.raises(BlobMissing, match=ABSENT):
                read(ABSENT)
        assert not store.exists(ABSENT)
        assert list(tmp_path.glob("*copy*")) == []

    def test_damage_is_noticed(self, local, source, tmp_path):
        local.put_file(source)
        stored = Path(local.url) / KEY
        stored.chmod(0o644)
        stored.write_bytes(CONTENT[:-1] + b"x")
        with pytest.raises(BlobCorrupt, match=KEY):
            local.fetch(KEY, tmp_path / "copy")
        assert list(tmp_path.glob("*copy*")) == []

    @pytest.mark.parametrize(
        "key", ["../../etc/passwd", "sha256/ab/../../x", f"sha256/11/{'0' * 64}", f"{ABSENT}\n", "", "incoming/upload"]
    )
    def test_only_digests_name_blobs(self, store, key, tmp_path):
        for access in (store.size, store.stream, store.delete, store.exists):
            with pytest.raises(ValueError, match="not a blob key"):
                access(key)


class TestDelete:
    def test_is_idempotent(self, store, source):
        store.put_file(source)
        store.delete(KEY)
        store.delete(KEY)
        assert visible(store) == []


class TestCrash:
    def test_a_killed_put_leaves_nothing_visible(self, local, tmp_path):
        """SIGKILL while a child copies from a pipe that never ends: what it wrote is in `incoming_dir` only."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        program = (
            "import sys, pathlib; from models_store.blobs import BlobStore\n"
            "BlobStore(sys.argv[1]).put_file(pathlib.Path(sys.argv[2]))"
        )
        child = subprocess.Popen([sys.executable, "-c", program, local.url, str(pipe)])
        with child, pipe.open("wb", buffering=0) as writer:
            writer.write(CONTENT)
            while not [path for path in local.incoming_dir.iterdir() if path.stat().st_size > 0]:
                assert child.poll() is None
            child.kill()
        assert child.returncode == -signal.SIGKILL
        assert [path for path in Path(local.url).rglob("*") if path.is_file()] == list(local.incoming_dir.iterdir())
        assert local.remove_abandoned(older_than_s=3600) == 0
        (left,) = local.incoming_dir.iterdir()
        os.utime(left, (time.time() - 7200,) * 2)
        assert local.remove_abandoned(older_than_s=3600) == 1
        assert list(local.incoming_dir.iterdir()) == []

    def test_a_full_disk_is_an_error_and_leaves_nothing(self, local, source, monkeypatch):
        def full(_descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BlobsUnavailable, match="No space left"):
            local.put_file(source)
        assert visible(local) == []
        assert list(local.incoming_dir.iterdir()) == []

    def test_a_failed_adoption_keeps_the_upload(self, s3, source, tmp_path):
        store = BlobStore("s3://bucket", tmp_path / "incoming")
        upload = store.incoming_dir / "upload"
        source.rename(upload)
        s3.refuse = True
        with pytest.raises(BlobsUnavailable):
            store.adopt(upload)
        assert upload.read_bytes() == CONTENT
        s3.refuse = False
        assert store.adopt(upload).key == KEY


class TestCheck:
    def test_a_working_store(self, store, source):
        store.check()
        store.put_file(source)
        store.check()
        assert list(store.incoming_dir.iterdir()) == []

    def test_a_store_that_refuses(self, s3, tmp_path):
        store = BlobStore("s3://bucket", tmp_path / "incoming")
        s3.refuse = True
        with pytest.raises(BlobsUnavailable, match=r"s3://bucket"):
            store.check()

    def test_a_store_that_is_away(self, monkeypatch, tmp_path):
        with running() as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with pytest.raises(BlobsUnavailable, match="s3://bucket"):
            BlobStore("s3://bucket", tmp_path).check()

    def test_a_folder_that_vanished(self, local):
        local.incoming_dir.rmdir()
        with pytest.raises(BlobsUnavailable):
            local.check()

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(BlobsUnavailable, match="cannot open the blob store"):
            BlobStore(str(tmp_path / "file"))

    @pytest.mark.parametrize("url", ["ftp://x/y", "file:///tmp/x", "memory:///", "s3:/bucket:/x://"])
    def test_other_urls_are_refused(self, url):
        with pytest.raises(ValueError, match="must be a folder or s3"):
            BlobStore(url)


def test_settings_open_the_store(tmp_path):
    store = BlobStore.from_settings(StoreSettings(data_dir=tmp_path))
    assert store.incoming_dir == tmp_path / "blobs" / "incoming"


def test_scope_has_blobs_of_its_own(store, source):
    shared = store.put_file(source)
    scoped = {}
    for scope in ("checkpoints/job_1/", "checkpoints/job_12/"):
        with source.open("rb") as file:
            scoped[scope] = store.put(file, scope)
    assert {blob.sha256 for blob in scoped.values()} == {shared.sha256}
    assert scoped["checkpoints/job_1/"].key == f"checkpoints/job_1/{KEY}"
    assert store.delete_scope("checkpoints/job_1/") == 1
    assert [store.exists(blob.key) for blob in (shared, *scoped.values())] == [True, False, True]
    assert store.delete_scope("checkpoints/job_1/") == 0


@pytest.mark.parametrize("scope", ["../", "checkpoints/../", "checkpoints/job_1", "/etc/x/", "a/b/c/"])
def test_odd_scopes_are_refused(local, source, scope):
    with source.open("rb") as file, pytest.raises(ValueError, match="not a scope"):
        local.put(file, scope)
    with pytest.raises(ValueError, match="not a scope"):
        local.delete_scope(scope)
