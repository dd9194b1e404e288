"""Where everything is kept: read from `ESPALIER_*` environment variables."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class StoreSettings(BaseSettings):
    """Database and blobs default to one data folder, so a single machine needs no setting at all."""

    model_config = SettingsConfigDict(env_prefix="ESPALIER_", frozen=True)

    data_dir: Path = Field(default=Path("espalier-data"), description="Folder of the embedded set-up.")
    database_url: str = Field(
        default="", repr=False, description="sqlite:///path or postgresql+psycopg://user:password@host/name"
    )
    blobs_url: str = Field(default="", description="A folder, or s3://bucket/prefix (credentials from AWS_*).")

    @model_validator(mode="before")
    @classmethod
    def _default_to_the_data_folder(cls, values: dict[str, Any]) -> dict[str, Any]:
        folder = Path(values.get("data_dir") or "espalier-data").absolute()
        return {
            **values,
            "data_dir": folder,
            "database_url": values.get("database_url") or f"sqlite:///{folder / 'espalier.db'}",
            "blobs_url": values.get("blobs_url") or str(folder / "blobs"),
        }

    @property
    def incoming_dir(self) -> Path:
        """Where unfinished uploads are written when the blobs live elsewhere (S3)."""
        return self.data_dir / "incoming"
