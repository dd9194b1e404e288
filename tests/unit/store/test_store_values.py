"""Identifiers, settings and stages: the store's plain values."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models_store import stages
from models_store.documents.event import STAGES, EventType
from models_store.documents.job import StageState
from models_store.documents.job_spec import JobKind
from models_store.identifiers import new_id, uuid7_hex
from models_store.settings import StoreSettings

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class TestIdentifiers:
    def test_form(self):
        assert re.fullmatch(r"mdl_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", new_id("mdl"))

    def test_the_time_is_inside(self):
        before = time.time_ns() // 1_000_000
        milliseconds = int(uuid7_hex()[:12], 16)
        assert before <= milliseconds <= time.time_ns() // 1_000_000 + 1

    def test_they_sort_by_creation(self):
        ids = [uuid7_hex() for _ in range(10_000)]
        assert ids == sorted(set(ids))

    def test_threads_get_different_ones(self):
        with ThreadPoolExecutor(8) as pool:
            ids = [id for some in pool.map(lambda _: [uuid7_hex() for _ in range(1000)], range(8)) for id in some]
        assert len(set(ids)) == 8000

    def test_a_clock_that_goes_back_does_not_take_them_along(self, monkeypatch):
        first = uuid7_hex()
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        assert uuid7_hex() > first


class TestSettings:
    @pytest.fixture(autouse=True)
    def _no_environment(self, monkeypatch):
        for name in ("DATA_DIR", "DATABASE_URL", "BLOBS_URL"):
            monkeypatch.delenv(f"ESPALIER_{name}", raising=False)

    def test_everything_in_one_folder_by_default(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        settings = StoreSettings()
        assert settings.data_dir == tmp_path / "espalier-data"
        assert settings.database_url == f"sqlite:///{tmp_path}/espalier-data/espalier.db"
        assert settings.blobs_url == f"{tmp_path}/espalier-data/blobs"

    def test_the_environment_decides(self, monkeypatch):
        monkeypatch.setenv("ESPALIER_DATA_DIR", "/srv/espalier")
        monkeypatch.setenv("ESPALIER_DATABASE_URL", "postgresql+psycopg://u:secret@db/espalier")
        monkeypatch.setenv("ESPALIER_BLOBS_URL", "")
        settings = StoreSettings()
        assert settings.database_url == "postgresql+psycopg://u:secret@db/espalier"
        assert settings.blobs_url == "/srv/espalier/blobs"
        assert settings.incoming_dir == Path("/srv/espalier/incoming")
        assert "secret" not in repr(settings)


class TestStages:
    def test_each_kind_of_job_has_its_own(self):
        assert [stage.name for stage in stages.initial(JobKind.PRUNE)] == list(STAGES)
        assert [stage.name for stage in stages.initial(JobKind.INSPECT)] == ["inspect"]

    def test_a_stage_from_begin_to_end(self):
        moved = stages.initial(JobKind.INSPECT)
        assert stages.progress(moved) == 0
        moved = stages.apply(moved, EventType.STAGE, {"name": "inspect", "state": "running"}, NOON)
        moved = stages.apply(moved, EventType.PROGRESS, {"stage": "inspect", "progress": 0.25, "eta_s": 9}, NOON)
        assert (stages.progress(moved), moved[0].eta_s) == (0.25, 9)
        later = NOON + timedelta(seconds=3)
        moved = stages.apply(moved, EventType.STAGE, {"name": "inspect", "state": "done"}, later)
        assert (stages.progress(moved), moved[0].eta_s) == (1, None)
        assert (moved[0].started_at, moved[0].finished_at) == (NOON, later)

    def test_a_skipped_stage_counts_as_progress_but_not_as_work(self):
        moved = stages.apply(
            stages.initial(JobKind.PRUNE), EventType.STAGE, {"name": "finetune", "state": "skipped"}, NOON
        )
        (skipped,) = [stage for stage in moved if stage.name == "finetune"]
        assert (skipped.progress, skipped.started_at) == (0, None)
        assert stages.progress(moved) == 1 / len(STAGES)

    def test_the_end_of_a_job_ends_its_running_stage_only(self):
        moved = stages.apply(
            stages.initial(JobKind.PRUNE), EventType.STAGE, {"name": "baseline", "state": "done"}, NOON
        )
        moved = stages.apply(moved, EventType.STAGE, {"name": "estimate", "state": "running"}, NOON)
        ended = stages.ended(moved, StageState.FAILED, NOON, "It broke.")
        found = {stage.name: stage for stage in ended}
        assert [stage.name for stage in ended if stage.state is StageState.FAILED] == ["estimate"]
        assert (found["baseline"].state, found["prune"].state) == (StageState.DONE, StageState.PENDING)
        assert (found["estimate"].message, found["estimate"].finished_at) == ("It broke.", NOON)

    def test_documents_survive_the_database(self):
        moved = stages.apply(
            stages.initial(JobKind.PRUNE), EventType.STAGE, {"name": "prune", "state": "running"}, NOON
        )
        assert stages.load(stages.dump(moved)) == moved
