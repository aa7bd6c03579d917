"""Certificates of authorities that can be trusted, with content that nobody would expect."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong.webtransport.asyncio import Cause, ConnectError, EndpointConfig, Engine, connect
from tests.support.certificates import Authority, Leaf
from tests.support.engines import ENGINES
from tests.webtransport.asyncio.peers import on_a_loop, run_clean, serving, stay

SRV = ObjectIdentifier("1.3.6.1.5.5.7.8.7")


def named(*names: x509.GeneralName) -> Leaf:
    return Authority().issue_odd(x509.SubjectAlternativeName(names))


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def raw(content: bytes) -> Leaf:
    oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    return Authority().issue_odd(x509.UnrecognizedExtension(oid, content))


def raw_names(*names: bytes) -> Leaf:
    return raw(der(0x30, b"".join(der(0x82, name) for name in names)))


async def refusal(
    leaf: Leaf, folder: Path, host: str = "localhost", client: Engine = "aioquic"
) -> str:
    """How a client that trusts its authority says no, whatever makes it do so."""
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(leaf.authority_pem)
    async with serving(stay, leaf=leaf) as server:
        with pytest.raises(ConnectError) as raised:
            await connect(
                f"https://{host}:{server.port}/",
                ca_file=str(ca_file),
                timeout=5,
                config=EndpointConfig(engine=client),
            )
    assert raised.value.cause is Cause.CERTIFICATE
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) < 300
    assert text.startswith("the certificate is ")
    return text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("*.test",), "too few host components"),
        (("localhost", "*.test"), "too few host components"),
        (("*.*.test",), "too many wildcards"),
        (("a.*.test",), "outside the left-most part"),
        (("*..test",), "empty parts"),
        (("127.0.0.1.",), ""),
        (("12",), "Invalid DNS pattern"),
        (("",), ""),
        (tuple(f"{number}.example" for number in range(300)), "is for 0.example, 1.example, "),
    ],
)
def test_odd_names(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    @on_a_loop
    async def refused() -> None:
        assert said in await refusal(named(*map(x509.DNSName, names)), tmp_path)

    refused()


@pytest.mark.parametrize(
    "leaf",
    [
        raw(b""),
        raw(b"\xff\xff"),
        raw(der(0x30, b"")),
        raw_names(b"\x1b[2J\x1b[31m.test"),
        raw_names(b"a\0b.test"),
        raw_names(b"\xe2\x80\xae.test"),
        raw_names(b"x" * 4000),
        named(x509.UniformResourceIdentifier("https://localhost:4433/")),
        named(x509.UniformResourceIdentifier("localhost")),
        named(x509.OtherName(SRV, der(0x16, b""))),
        named(x509.OtherName(SRV, der(0x16, b"_x"))),
        named(x509.OtherName(SRV, der(0x04, b"x"))),
        Authority().issue_odd(x509.ExtendedKeyUsage([ObjectIdentifier("1.2.3")])),
    ],
    ids=range(13),
)
def test_odd_content(leaf: Leaf, tmp_path: Path) -> None:
    @on_a_loop
    async def refused() -> None:
        await refusal(leaf, tmp_path)

    refused()


def test_any_names(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")

    content = st.one_of(st.text("*.ab1:_\x1b", max_size=12).map(str.encode), st.binary(max_size=60))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from((0x81, 0x82, 0x86, 0x87, 0xA0)), content)))
    def refused(names: list[tuple[int, bytes]]) -> None:
        leaf = raw(der(0x30, b"".join(der(*name) for name in names)))
        run_clean(refusal(leaf, folder), "asyncio")  # type: ignore[arg-type]

    refused()


@pytest.mark.parametrize("client", ENGINES)
@pytest.mark.parametrize("name", [x509.DNSName("a.test"), x509.IPAddress(IPv4Address("127.0.0.1"))])
def test_no_certificate_is_for_a_host_that_is_neither_name_nor_address(
    name: x509.GeneralName, client: Engine, tmp_path: Path
) -> None:
    """Of 127.1 the system knows the address; TLS knows no such name."""

    @on_a_loop
    async def refused() -> None:
        text = await refusal(named(name), tmp_path, "127.1", client)
        assert text.endswith(", not for 127.1")

    refused()


@on_a_loop
async def test_who_trusts_any_certificate_reads_none_of_it() -> None:
    async with serving(stay, leaf=named(x509.DNSName("*.test"))) as server:
        url = f"https://localhost:{server.port}/"
        async with await connect(url, insecure=True) as session:
            assert not session.closed.done()
