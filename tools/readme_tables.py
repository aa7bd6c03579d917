"""Writes the settings tables into the README: `make format` runs it."""

from __future__ import annotations

from pathlib import Path

from pingpong.ops.settings import PingSettings, ServeSettings, settings_table

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    """Put each verb's table where the README has a place for it."""
    text = README.read_text()
    for verb, settings in (("serve", ServeSettings), ("ping", PingSettings)):
        before, rest = text.split(f"<!-- settings: {verb} -->", 1)
        after = rest.split("<!-- /settings -->", 1)[1]
        table = settings_table(settings).strip()
        text = f"{before}<!-- settings: {verb} -->\n{table}\n<!-- /settings -->{after}"
    README.write_text(text)


if __name__ == "__main__":
    main()
