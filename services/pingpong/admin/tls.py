"""TLS of the admin port: a certificate from files, read again when they change."""

from __future__ import annotations

import ssl
from pathlib import Path

from ..settings.files import Reloaded, WatchedFiles
from ..telemetry.logs import get_logger
from .errors import AdminError


class ServerTls:
    """A server's TLS context, whose handshakes use the current certificate of the files.

    A new certificate does not affect open connections.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """Raises `AdminError` if the files cannot be used."""
        self._paths = cert_file, key_file
        self._watched = WatchedFiles(cert_file, key_file)
        self._log = get_logger("pingpong.admin")
        self._loaded = Reloaded(self._watched.changed, self._load, AdminError, self._log_unusable)
        self.context = self._loaded.value
        self.context.sni_callback = self._use_loaded

    def check_files(self, now: float) -> None:
        """Read the files again if they have changed; cheap enough for every second.

        `now` is in seconds of a monotonic clock.
        """
        if self._loaded.check(now):
            self._log.info("admin_certificate_changed")

    def _use_loaded(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> None:
        # Called in each handshake, also if the client sends no server name.
        handshake.context = self._loaded.value

    def _load(self) -> ssl.SSLContext:
        cert_file, key_file = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            self._watched.read()
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except ssl.SSLError as error:
            told = getattr(error, "reason", "") or error.strerror or str(error)
            reason = "not PEM" if "PEM lib" in told else told.lower()
            raise AdminError(
                f"the admin port's certificate {cert_file} and key {key_file} cannot be used:"
                f" {reason.replace('_', ' ')}; give a certificate with its chain, and its key, in PEM"
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise AdminError(
                f"cannot read the admin port's certificate {cert_file} or key {key_file}:"
                f" {reason}; check their paths and permissions"
            ) from None
        return context

    def _log_unusable(self, error: str | None) -> None:
        if error is None:
            self._log.info("admin_certificate_usable")
        else:
            self._log.error("admin_certificate_unusable", error=error)


def _no_password() -> str:
    # Without this, OpenSSL asks for the password of an encrypted key on the terminal.
    raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the key is encrypted")
