"""The settings of ``pingpong certificate``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import CliPositionalArg, NoDecode

from .base import Settings
from .command_line import Flag
from .values import at_least_one, comma_separated, not_empty, read_host


class CertificateSettings(Settings):
    """Settings of ``pingpong certificate``."""

    verb = "certificate"
    about = (
        "Create a certificate for a server, and the authority that signs it, in two Kubernetes"
        " Secrets; or renew them when they are due. Otherwise it changes nothing."
    )
    notes = (
        "Each option is also an environment variable: --namespace is PINGPONG_NAMESPACE. An option"
        " overrides its variable.",
        "An authority is valid for ten years, and renewed two years before its end; a certificate is"
        " valid for a year, and renewed when a third of it is left, or when its names change.",
        "Exit status: 0, both Secrets are up to date; 1, they could not be read, written or used; 2,"
        " an option is wrong.",
    )

    hosts: CliPositionalArg[
        Annotated[
            tuple[str, ...],
            NoDecode,
            BeforeValidator(comma_separated(read_host)),
            AfterValidator(at_least_one),
        ]
    ] = Field(
        description="names and IP addresses that the certificate is for, one or several; a name's"
        " first label may be *"
    )
    namespace: Annotated[str, BeforeValidator(not_empty), Flag("Secrets", "", "NAME")] = Field(
        default="default", description="namespace of the Secrets"
    )
    certificate_secret: Annotated[str, BeforeValidator(not_empty), Flag("Secrets", "", "NAME")] = (
        Field(
            default="pingpong-certificate",
            description="Secret for the certificate: tls.crt, tls.key, and ca.crt for clients to trust",
        )
    )
    authority_secret: Annotated[str, BeforeValidator(not_empty), Flag("Secrets", "", "NAME")] = (
        Field(
            default="pingpong-authority",
            description="Secret for the authority that signs it: ca.crt and ca.key",
        )
    )
