"""Keeps the server's certificate current: reloads files, or replaces a self-signed one in time.

A new certificate is for new handshakes and does not affect open sessions. Clients cannot resume with
the old one either: the server sends no session tickets, so every handshake has the certificate.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

from ...settings import ServeSettings
from ...settings.command_line import named
from ...settings.files import Reloaded, WatchedFiles
from ...telemetry.failure_log import FailureLogThrottle
from ...telemetry.logs import get_logger
from ...webtransport.asyncio import EngineChoice, check_certificate
from ...webtransport.certificates import (
    Certificate,
    CertificateError,
    alternative_names,
    make_certificate,
    parse_certificate,
    unreadable,
)
from .. import ServeError

SELF_SIGNED = "self_signed"
EXPIRES_SOON = timedelta(days=7)
"""Time before the end of a certificate at which to warn; it should have been renewed before."""

STORED = "self-signed.pem"
"""The file of the certificate and its key, in the state directory."""
_LOGGER = "pingpong.server.certificates"
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?")


class CertificateKeeper(ABC):
    """Has the current certificate: `certificate`.

    Call `check` about every second. Times are those of the wall clock, with a time zone.
    """

    origin: ClassVar[str]
    """The source of the certificate, for logs: `file` or `self_signed`."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self._logger = get_logger(_LOGGER)

    @property
    def reload_failed(self) -> bool:
        """Whether a new certificate cannot be used, so that the old one is still in use."""
        return False

    def check(self, now: datetime) -> Certificate | None:
        """Return the new certificate to use from now on; None if there is none."""
        certificate = self._renew(now)
        if certificate is not None:
            self.certificate = certificate
            self._logger.info(
                "certificate_changed",
                certificate=self.origin,
                sha256=certificate.sha256.hex(),
                not_after=certificate.not_after.isoformat(),
            )
        return certificate

    @abstractmethod
    def _renew(self, now: datetime) -> Certificate | None:
        """Return the new certificate, or None."""


class SelfSignedCertificates(CertificateKeeper):
    """Self-signed certificates for names and addresses, each replaced before it expires.

    Clients that trust it by its hash need the new hash. With `folder` the certificate is stored
    there, and the next process uses it again.
    """

    origin = SELF_SIGNED

    def __init__(self, hosts: Sequence[str], now: datetime, folder: Path | None = None) -> None:
        """Raises `ValueError` as `make_certificate` does, and `OSError` for the folder."""
        self._hosts = hosts
        self._file = None if folder is None else folder / STORED
        stored = self._read(now)
        super().__init__(stored or make_certificate(hosts, now))
        if stored is None:
            self._write()

    def _renew(self, now: datetime) -> Certificate | None:
        if not self.certificate.is_due(now):
            return None
        return make_certificate(self._hosts, now)

    def check(self, now: datetime) -> Certificate | None:
        """Return the new certificate to use from now on; None if there is none."""
        certificate = super().check(now)
        if certificate is not None:
            try:
                self._write()
            except OSError as error:
                self._logger.error("certificate_not_stored", file=str(self._file), error=str(error))
        return certificate

    def _read(self, now: datetime) -> Certificate | None:
        """The stored certificate; None if there is none, or it cannot be used."""
        if self._file is None:
            return None
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            certificate = parse_certificate(data, data, self._file, self._file)
        except CertificateError as error:
            reason = str(error)
        else:
            if certificate.names != set(alternative_names(self._hosts)):
                reason = "it is for other names"
            elif certificate.is_due(now):
                reason = "less than a third of its life is left"
            else:
                return certificate
        get_logger(_LOGGER).warning(
            "stored_certificate_replaced", file=str(self._file), reason=reason
        )
        return None

    def _write(self) -> None:
        """Store the certificate and its key atomically."""
        if self._file is None:
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `mkstemp` creates a file that only the owner can read.
        descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=f".{STORED}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(self.certificate.private_pem())
                file.flush()
                os.fsync(descriptor)
            os.replace(name, self._file)
        except BaseException:
            os.unlink(name)
            raise


class CertificateFiles(CertificateKeeper):
    """The certificate in PEM files, read again when they change.

    A pair is not used if it is damaged, does not belong together, or is not valid while the one in
    use is. Certificate and key may be replaced one after the other.
    """

    origin = "file"

    def __init__(
        self, cert_file: Path, key_file: Path, now: datetime, engine: EngineChoice = "auto"
    ) -> None:
        """Raises `CertificateError` if the files cannot be used, by `engine` in particular."""
        self._engine = engine
        self._paths = cert_file, key_file
        self._watched = WatchedFiles(cert_file, key_file)
        self._now = now
        self._current: Certificate | None = None
        self._files = Reloaded(
            self._watched.changed, self._load, CertificateError, self._log_unusable
        )
        self._current = self._files.value
        self._warned = FailureLogThrottle(timedelta(days=1).total_seconds())
        super().__init__(self._files.value)
        self._warn(now)

    @property
    def reload_failed(self) -> bool:
        """Whether the files have changed but cannot be used."""
        return self._files.failed

    def check(self, now: datetime) -> Certificate | None:
        """Return the new certificate to use from now on; None if there is none."""
        certificate = super().check(now)
        if certificate is not None:
            self._warned.forget(None)
        self._warn(now)
        return certificate

    def _renew(self, now: datetime) -> Certificate | None:
        self._now = now
        is_new = self._files.check(now.timestamp())
        self._current = self._files.value
        return self._files.value if is_new else None

    def _load(self) -> Certificate:
        try:
            cert_data, key_data = self._watched.read()
        except OSError as error:
            raise unreadable(error, *self._paths) from None
        certificate = parse_certificate(cert_data, key_data, *self._paths)
        try:
            check_certificate(certificate, self._engine)
        except CertificateError as error:
            raise CertificateError(f"{self._paths[1]}: {error}") from None
        if self._current is not None and self._current.warning(self._now) is None:
            warning = certificate.warning(self._now)
            if warning is not None:
                raise CertificateError(f"{self._paths[0]}: {warning}")
        return certificate

    def _log_unusable(self, error: str | None) -> None:
        if error is None:
            self._logger.info("certificate_usable")
        else:
            self._logger.error(
                "certificate_unusable", error=error, sha256_kept=self.certificate.sha256.hex()
            )

    def _warn(self, now: datetime) -> None:
        """Log once a day that the certificate is not valid, or expires soon."""
        current = self._files.value
        warning = current.warning(now)
        left = current.not_after - now
        if warning is None and left < EXPIRES_SOON:
            time = f"{left.days} days" if left.days > 1 else f"{left // timedelta(hours=1)} hours"
            warning = (
                f"the certificate expires in {time}, at {current.not_after.isoformat()}: renew it"
            )
        if warning is None:
            return
        kind = "expires soon" if timedelta(0) <= left < EXPIRES_SOON else "not valid"
        if self._warned.failed(None, kind, now.timestamp()) is not None:
            self._logger.warning("certificate_expiry", warning=warning)


def own_hosts(bind_host: str) -> list[str]:
    """The names and addresses of this machine, for a self-signed certificate."""
    hosts = ["localhost", "127.0.0.1", "::1"]
    if _HOST_NAME.fullmatch(name := socket.gethostname()):
        hosts.append(name)
    host = bind_host.partition("%")[0]  # certificates have no zones
    if host not in ("::", "0.0.0.0"):
        hosts.append(host)
    return list(dict.fromkeys(hosts))


def make_keeper(settings: ServeSettings, now: datetime) -> CertificateKeeper:
    """Make the keeper of the settings' certificate, or of a self-signed one for this machine.

    Raises `ServeError`.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        try:
            return SelfSignedCertificates(own_hosts(settings.bind_host), now, settings.state_dir)
        except ValueError as error:
            raise ServeError(
                f"{named('bind_host')}: cannot listen on {settings.bind_host}: {error}"
            ) from None
        except OSError as error:
            raise ServeError(
                f"{named('state_dir')}: cannot keep a certificate in {settings.state_dir}:"
                f" {(error.strerror or str(error)).lower()}; check its path and permissions"
            ) from None
    try:
        return CertificateFiles(settings.tls_cert_file, settings.tls_key_file, now, settings.engine)
    except CertificateError as error:
        raise ServeError(str(error)) from error
