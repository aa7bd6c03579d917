"""`pingpong certificate`: creates and renews an authority and a certificate in two Secrets.

Several processes may run at the same time. Each writes a whole Secret, and only if it has not changed
since it was read (its resourceVersion); otherwise it starts again. So the key in a Secret always
belongs to its certificate, and all processes use the same authority.
"""

# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubernetes.aio.client import ApiClient, ApiException, CoreV1Api, V1ObjectMeta, V1Secret

from ... import cluster
from ...settings import CertificateSettings
from ...settings.command_line import named
from ...telemetry.logs import get_logger
from ...webtransport.certificates import CertificateError
from .issuing import Data, Kept, keep_authority, keep_certificate

_TIMEOUT = 15.0
"""Timeout in seconds of a request to the API server."""
_ATTEMPTS = 10
"""Maximum attempts, if others write the Secrets at the same time."""
_LABELS = {"app.kubernetes.io/managed-by": "pingpong"}


class CertificateSecretsError(Exception):
    """The Secrets cannot be kept up to date; the text is one line that says what to do."""


class _ConflictError(Exception):
    """The Secret was written, created or deleted since it was read."""


class _NotFoundError(Exception):
    """There is no such Secret, or no such namespace."""


@dataclass(frozen=True)
class _Held:
    data: Data
    secret: V1Secret | None = None
    """None if there is no such Secret."""


class _Secrets:
    """Reads and writes the Secrets of a namespace."""

    def __init__(self, api_client: ApiClient, namespace: str) -> None:
        self._api = CoreV1Api(api_client)
        self._namespace = namespace

    async def read(self, name: str) -> _Held:
        """Read a Secret; without data if there is none."""
        try:
            secret = await self._call("get", name, self._api.read_namespaced_secret, name)
        except _NotFoundError:
            return _Held({})
        return _Held(
            {key: base64.b64decode(value) for key, value in (secret.data or {}).items()}, secret
        )

    async def write(self, name: str, held: _Held, data: Data) -> None:
        """Write these keys into a Secret that has not changed since it was read.

        Raises `_ConflictError` if it was changed or deleted.
        """
        encoded: dict[str, bytes | str] = {
            key: base64.b64encode(value).decode("ascii") for key, value in data.items()
        }
        if held.secret is not None:
            secret = held.secret
            secret.data = {**(secret.data or {}), **encoded}
            try:
                await self._call(
                    "update", name, self._api.replace_namespaced_secret, name, body=secret
                )
            except _NotFoundError:
                raise _ConflictError from None
            return
        metadata = V1ObjectMeta(name=name, labels=_LABELS)
        secret = V1Secret(
            api_version="v1", kind="Secret", metadata=metadata, type="Opaque", data=encoded
        )
        try:
            await self._call("create", name, self._api.create_namespaced_secret, body=secret)
        except _NotFoundError:
            raise CertificateSecretsError(
                f"there is no namespace {self._namespace}: create it, or set {named('namespace')}"
            ) from None

    async def _call(
        self, verb: str, name: str, method: Callable[..., Awaitable[Any]], *names: str, **body: Any
    ) -> Any:
        try:
            return await method(*names, self._namespace, _request_timeout=_TIMEOUT, **body)
        except Exception as error:
            text = cluster.explain(error)
            if isinstance(error, ApiException):
                if error.status == 404:
                    raise _NotFoundError from None
                if error.status == 409:
                    raise _ConflictError from None
                if error.status == 403:
                    text = (
                        f"the service account may not: add a Role that allows it to {verb} secrets"
                    )
            raise CertificateSecretsError(
                f"cannot {verb} the Secret {name} in the namespace {self._namespace}: {text}"
            ) from None


async def keep_certificates(settings: CertificateSettings, now: datetime) -> None:
    """Create or renew the content of both Secrets if it is due at `now` (with a time zone).

    Raises:
        CertificateSecretsError: they cannot be read, written, or used.
    """
    try:
        async with cluster.connect("pingpong certificate") as api_client:
            secrets = _Secrets(api_client, settings.namespace)
            for _ in range(_ATTEMPTS):
                try:
                    await _keep(secrets, settings, now)
                except _ConflictError:
                    continue
                return
    except cluster.ClusterError as error:
        raise CertificateSecretsError(str(error)) from None
    raise CertificateSecretsError(
        f"the Secrets {settings.authority_secret} and {settings.certificate_secret} were changed by"
        f" others during each of {_ATTEMPTS} attempts: run it again when no other process writes them"
    )


async def _keep(secrets: _Secrets, settings: CertificateSettings, now: datetime) -> None:
    name = settings.authority_secret
    held = await secrets.read(name)
    try:
        authority = keep_authority(held.data, now)
    except CertificateError as error:
        raise CertificateSecretsError(
            f"the Secret {name} in the namespace {settings.namespace} cannot be used: {error};"
            " restore it, or delete it to create another authority, which clients must then trust"
        ) from None
    if authority.data is not None:
        await secrets.write(name, held, authority.data)
        _log("authority_made", name, authority)
    name = settings.certificate_secret
    held_certificate = await secrets.read(name)
    certificate = keep_certificate(
        held_certificate.data, authority.certificate, settings.hosts, now
    )
    if certificate.data is not None:
        await secrets.write(name, held_certificate, certificate.data)
    _log("certificate_issued" if certificate.reason else "certificate_kept", name, certificate)


def _log(event: str, name: str, kept: Kept) -> None:
    get_logger("pingpong.server.certificate_secrets").info(
        event,
        name=name,
        sha256=kept.certificate.sha256.hex(),
        not_after=kept.certificate.not_after.isoformat(),
        **({"reason": kept.reason} if kept.reason else {}),
    )
