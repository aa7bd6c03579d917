"""Writes the tables of settings, metrics and engines into docs/: `make format` runs it."""

from __future__ import annotations

from pathlib import Path

from pingpong.client.probe import metrics as client_metrics
from pingpong.server import metrics as server_metrics
from pingpong.settings import (
    CertificateSettings,
    PingSettings,
    ProbeSettings,
    ServeSettings,
    settings_table,
)
from pingpong.telemetry.metrics import collected_table, metrics_table
from pingpong.telemetry.process import standard_registry
from pingpong.webtransport.quic.config import Engine
from pingpong.webtransport.quic.engines import CAPABILITIES

ENGINES: tuple[Engine, ...] = ("aioquic", "quinn")
DOCS = Path(__file__).resolve().parent.parent / "docs"


def tables() -> dict[str, dict[str, str]]:
    """The tables of each page, by the comment that each stands behind."""
    verbs = (ServeSettings, ProbeSettings, PingSettings, CertificateSettings)
    specs = {"serve": server_metrics.SPECS, "probe": client_metrics.SPECS}
    return {
        "configuration.md": {f"settings: {cls.verb}": settings_table(cls) for cls in verbs},
        "library.md": {"engines": engines_table()},
        "metrics.md": {
            **{f"metrics: {verb}": metrics_table(of) for verb, of in specs.items()},
            "metrics: process": collected_table(standard_registry().collect()),
        },
    }


def engines_table() -> str:
    """What each QUIC engine can do, and what it means if it cannot."""
    rows = [f"| | {' | '.join(ENGINES)} | without it |", f"|---|{'---|' * len(ENGINES)}---|"]
    for one in CAPABILITIES:
        has = " | ".join("yes" if engine in one.engines else "no" for engine in ENGINES)
        rows.append(f"| {one.name} | {has} | {one.without} |")
    return "\n".join(rows)


def filled(text: str, of_page: dict[str, str]) -> str:
    """A page's text with its tables, each where the page has a place for it."""
    for name, table in of_page.items():
        before, rest = text.split(f"<!-- {name} -->", 1)
        after = rest.split("<!-- end -->", 1)[1]
        text = f"{before}<!-- {name} -->\n{table.strip()}\n<!-- end -->{after}"
    return text


def main() -> None:
    """Bring the tables of every page up to date."""
    for page, of_page in tables().items():
        path = DOCS / page
        path.write_text(filled(path.read_text(), of_page))


if __name__ == "__main__":
    main()
