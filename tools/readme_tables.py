"""Writes the tables of settings and metrics into the README: `make format` runs it."""

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
from pingpong.telemetry.metrics import metrics_table

README = Path(__file__).resolve().parent.parent / "README.md"


def tables() -> dict[str, str]:
    """Each table by the comment that it stands behind."""
    verbs = (ServeSettings, ProbeSettings, PingSettings, CertificateSettings)
    settings = {cls.verb: settings_table(cls) for cls in verbs}
    specs = {"serve": server_metrics.SPECS, "probe": client_metrics.SPECS}
    return {
        **{f"settings: {verb}": table for verb, table in settings.items()},
        **{f"metrics: {verb}": metrics_table(of) for verb, of in specs.items()},
    }


def main() -> None:
    """Put each table where the README has a place for it."""
    text = README.read_text()
    for name, table in tables().items():
        before, rest = text.split(f"<!-- {name} -->", 1)
        after = rest.split("<!-- end -->", 1)[1]
        text = f"{before}<!-- {name} -->\n{table.strip()}\n<!-- end -->{after}"
    README.write_text(text)


if __name__ == "__main__":
    main()
