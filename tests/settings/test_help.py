from __future__ import annotations

import pytest

from pingpong.settings import (
    PingSettings,
    Settings,
    settings_table,
)
from tests.settings.parsing import ALL


def help_of(
    cls: type[Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        cls.parse(["--help"], {})
    assert caught.value.code == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


class TestHelp:
    @pytest.mark.parametrize("cls", ALL)
    def test_reads_like_a_tools(
        self,
        cls: type[Settings],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        text = help_of(cls, capsys, monkeypatch)
        assert text.startswith(f"usage: pingpong {cls.verb} [options]")
        assert all(len(line) <= 80 for line in text.splitlines())
        assert not any(line.endswith(" ") for line in text.splitlines())
        for inner in (
            "JSON string",
            "null",
            "None",
            "Path",
            "PydanticUndefined",
            "\N{NO-BREAK SPACE}",
        ):
            assert inner not in text
        for name, field in cls.model_fields.items():
            assert field.description, name
            name = str(field.alias or name)
            assert name.upper().rstrip("S") in text or f"{name.replace('_', '-')}" in text

    def test_ping(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = help_of(PingSettings, capsys, monkeypatch)
        assert text.startswith("usage: pingpong ping [options] TARGET...\n")
        for line in (
            "  -i, --interval SECONDS         time from one ping to the next (default: 1)",
            "  -c, --count N                  stop after N pings; without it, go on until",
            "  -q, --[no-]quiet               show the summary only",
            "      --ca FILE                  trust the certificate authorities in this PEM",
        ):
            assert line in text.splitlines()
        assert "Exit status: 0, every target answered; 1" in text.replace("\n", " ")

    def test_needs_nothing_else_to_be_right(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match=r"^0$"):
            PingSettings.parse(["-h"], {"PINGPONG_COUNT": "x"})
        assert "usage:" in capsys.readouterr().out

    @pytest.mark.parametrize("columns", ["20", "300"])
    def test_odd_terminals(
        self, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit):
            PingSettings.parse(["-h"], {})
        assert all(len(line) <= 100 for line in capsys.readouterr().out.splitlines())


class TestTable:
    def test_a_row_a_setting(self) -> None:
        lines = settings_table(PingSettings).splitlines()
        assert lines[:2] == ["| variable | flag | default | meaning |", "|---|---|---|---|"]
        assert len(lines) == 2 + len(PingSettings.model_fields)
        assert lines[2].startswith("| `PINGPONG_TARGETS` | `TARGET...` |  | what to ping, one or ")
        assert (
            "| `PINGPONG_INTERVAL` | `-i`, `--interval` | `1` | time from one ping to the next |"
            in lines
        )
        assert all(line.replace("\\|", "").count("|") == 5 for line in lines)

    @pytest.mark.parametrize("cls", ALL)
    def test_every_default_is_a_value_that_its_variable_takes(self, cls: type[Settings]) -> None:
        rows = [line.split(" | ") for line in settings_table(cls).splitlines()[2:]]
        environ = {row[0].strip("| `"): row[2].strip("` ") for row in rows}
        required = {name: "h" for name in ("targets", "hosts") if name in cls.model_fields}
        for name, value in required.items():
            environ[f"PINGPONG_{name.upper()}"] = value
        assert cls.parse([], environ) == cls(**required)
