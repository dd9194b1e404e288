"""`python -m app`: the API on one port, until SIGTERM or Ctrl-C."""

import argparse
import logging
import socket
import sys
from contextlib import suppress

import uvicorn

from app.main import create_app
from app.settings import ApiSettings
from app.sharing.access_log import WithoutSignatures

SHUTDOWN_GRACE_S = 5  # event streams would never end by themselves


def main() -> None:
    """Serve on ESPALIER_HOST and ESPALIER_PORT, or on a listening socket that the parent process has opened."""
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument(
        "--fd", type=int, help="descriptor of an inherited socket to serve on, instead of host and port"
    )
    inherited = parser.parse_args().fd
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it reports itself at every look at /readyz
    logging.getLogger("uvicorn.access").addFilter(WithoutSignatures())
    settings = ApiSettings()
    if not settings.keyed:
        told = "authentication is off: whoever reaches %s can use everything; ESPALIER_AUTH=required asks for API keys"
        logging.getLogger("app").warning(told, settings.host)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
            log_config=None,
        )
    )
    with suppress(KeyboardInterrupt):  # uvicorn has closed everything, and raises it again
        server.run(sockets=None if inherited is None else [socket.socket(fileno=inherited)])
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    main()
