"""How a server is reached, and whom to trust there: what every verb is told that connects."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from .base import Flag, Settings
from .values import FilePath, Seconds, SecretFilePath, read_hash


class ConnectionSettings(Settings):
    """What every verb takes that connects to a server that somebody else runs."""

    connect_timeout: Annotated[Seconds, Flag("Connection", (), "SECONDS")] = Field(
        default=5.0, description="time to be connected in, the name's lookup included"
    )
    ca_file: Annotated[FilePath | None, Flag("Connection", ("ca",), "FILE")] = Field(
        default=None,
        description="trust the certificate authorities in this PEM file, not the system's",
    )
    cert_hash: Annotated[
        bytes | None, BeforeValidator(read_hash), Flag("Connection", (), "SHA256")
    ] = Field(
        default=None,
        description="trust exactly the certificate with this SHA-256, in hex or base64, whoever"
        " signed it",
    )
    insecure: Annotated[bool, Flag("Connection")] = Field(
        default=False, description="trust any certificate: whoever is on the way may answer"
    )
    token_file: Annotated[SecretFilePath | None, Flag("Connection", (), "FILE")] = Field(
        default=None,
        description="send the token in this file (Authorization: Bearer); read again for each"
        " connection; one token",
    )

    @model_validator(mode="after")
    def _trust_is_one(self) -> Self:
        if self.insecure and (self.cert_hash is not None or self.ca_file is not None):
            other = "--ca" if self.cert_hash is None else "--cert-hash"
            raise ValueError(f"--insecure and {other} exclude each other: trust any, or that one")
        return self

    @property
    def trust(self) -> str:
        """Whom the settings trust, in words."""
        if self.insecure:
            return "any certificate"
        if self.cert_hash is not None:
            return f"the certificate with SHA-256 {self.cert_hash.hex()}"
        if self.ca_file is not None:
            return f"the authorities in {self.ca_file}"
        return "the system's authorities"
