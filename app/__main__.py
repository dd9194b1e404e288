"""`python -m app`: the API on one port, until SIGTERM or Ctrl-C."""

import logging

import uvicorn

from app.main import create_app
from app.settings import ApiSettings

SHUTDOWN_GRACE_S = 5  # event streams would never end by themselves


def main() -> None:
    """Serve on ESPALIER_HOST and ESPALIER_PORT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = ApiSettings()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
        log_config=None,
    )


if __name__ == "__main__":
    main()
