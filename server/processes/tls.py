"""TLS of the front-end: what the `--ssl-*` flags mean to granian, and the watch over their files."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import ServerConfig

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


def check_tls(config: ServerConfig) -> None:
    """Raise ValueError, naming the flag, when the files do not make up a TLS server."""
    if config.ssl_certfile is None:
        given = {
            "--ssl-keyfile": config.ssl_keyfile,
            "--ssl-ca-certs": config.ssl_ca_certs,
            "--ssl-cert-reqs": config.ssl_cert_reqs,
            "--enable-ssl-refresh": config.enable_ssl_refresh,
        }
        useless = [name for name, value in given.items() if value]
        if useless:
            raise ValueError(f"{useless[0]} needs --ssl-certfile: without a certificate there is no TLS.")
        return
    key = config.ssl_keyfile or config.ssl_certfile
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.ssl_certfile, key, password=_refuse_password)
        if config.ssl_ca_certs is not None:
            context.load_verify_locations(config.ssl_ca_certs)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the files of --ssl-certfile, --ssl-keyfile and --ssl-ca-certs do not serve: {error}"
        ) from None
    if config.ssl_cert_reqs and config.ssl_ca_certs is None:
        raise ValueError("--ssl-cert-reqs 2 needs --ssl-ca-certs: whose certificates are to be accepted.")


def tls_options(config: ServerConfig) -> dict[str, Any]:
    """The arguments of `Granian` that concern TLS; none where it is not asked for."""
    if config.ssl_certfile is None:
        return {}
    from granian.constants import SSLProtocols  # the command line checks flags without granian

    return {
        "ssl_cert": config.ssl_certfile,
        "ssl_key": config.ssl_keyfile or config.ssl_certfile,
        "ssl_ca": config.ssl_ca_certs,
        "ssl_client_verify": config.ssl_cert_reqs != 0,
        "ssl_protocol_min": SSLProtocols.tls12,
    }


def watch_files(config: ServerConfig, when_changed: Callable[[], None]) -> None:
    """Call `when_changed` whenever a TLS file has become another, once the files go together again.

    Runs in a thread of this process until that ends.
    """
    files = [path for path in (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs) if path is not None]

    def watch() -> None:
        seen = _stamps(files)
        while True:
            threading.Event().wait(WATCH_SECONDS)
            now = _stamps(files)
            if now == seen:
                continue
            seen = now
            try:
                check_tls(config)
            except ValueError as error:  # half replaced: the other file is yet to come
                logger.warning("The TLS files have changed and are not used yet: %s", error)
                continue
            logger.info("The TLS files have changed; the workers are replaced.")
            when_changed()

    threading.Thread(target=watch, name="tls-watcher", daemon=True).start()


def _stamps(files: list[Path]) -> list[tuple[int, int] | None]:
    """What tells a file from its successor: inode and time of change; None while there is no file."""
    stamps: list[tuple[int, int] | None] = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            stamps.append(None)
            continue
        stamps.append((status.st_ino, status.st_mtime_ns))
    return stamps


def _refuse_password() -> str:
    raise ValueError("the key is encrypted; give one without a password")
