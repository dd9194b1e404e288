"""`python -m models_store.migrate`: bring the database named by ESPALIER_DATABASE_URL to this version."""

from models_store.database import Database
from models_store.settings import StoreSettings


def main() -> None:
    Database(StoreSettings().database_url).upgrade()


if __name__ == "__main__":
    main()
