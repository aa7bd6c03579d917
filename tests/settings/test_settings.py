from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr, ValidationError

from pingpong.ping import HEADER_SIZE
from pingpong.settings import (
    PingSettings,
    ProbeSettings,
    RunSettings,
    ServeSettings,
    Settings,
    SettingsError,
    unknown_variables,
)
from tests.settings.parsing import ALL, SHA256, mistakes, ping


class TestSources:
    def test_defaults(self) -> None:
        settings = ServeSettings.parse([], {})
        assert (settings.bind_host, settings.bind_port) == ("::", 4433)
        assert settings.idle_timeout == 15
        assert (settings.tls_cert_file, settings.tls_key_file) == (None, None)
        assert (settings.log_level, settings.log_format) == ("info", "auto")
        at_shell = ping("localhost")
        assert (at_shell.count, at_shell.interval, at_shell.timeout) == (None, 1, 1)
        assert (at_shell.size, at_shell.mode, at_shell.connect_timeout) == (64, "datagram", 5)
        assert (at_shell.deadline, at_shell.quiet, at_shell.log_level) == (None, False, "warning")

    def test_every_field_from_its_variable(self) -> None:
        settings = ServeSettings.parse(
            [],
            {
                "PINGPONG_BIND_HOST": "127.0.0.1",
                "PINGPONG_BIND_PORT": "0",
                "PINGPONG_TLS_CERT_FILE": "/tls/tls.crt",
                "PINGPONG_TLS_KEY_FILE": "/tls/tls.key",
                "PINGPONG_IDLE_TIMEOUT": "2.5",
                "PINGPONG_MAX_CONNECTIONS": "1",
                "PINGPONG_MAX_SESSIONS": "2",
                "PINGPONG_MAX_STREAMS": "3",
                "PINGPONG_MAX_MESSAGE_SIZE": "100",
                "PINGPONG_MAX_HANDSHAKES": "0",
                "PINGPONG_LOG_LEVEL": "DEBUG",
                "PINGPONG_LOG_FORMAT": "json",
            },
        )
        assert settings == ServeSettings(
            bind_host="127.0.0.1",
            bind_port=0,
            tls_cert_file=Path("/tls/tls.crt"),
            tls_key_file=Path("/tls/tls.key"),
            idle_timeout=2.5,
            max_connections=1,
            max_sessions=2,
            max_streams=3,
            max_message_size=100,
            max_handshakes=0,
            log_level="debug",
            log_format="json",
        )

    def test_letters(self) -> None:
        words = "-c5 -i .2 -W 3 -s 100 -qD -w 60 -4 --mode uni --json --ca ca.pem"
        settings = ping(*words.split(), "localhost")
        assert settings == PingSettings(
            targets=("localhost",),
            count=5,
            interval=0.2,
            timeout=3,
            size=100,
            quiet=True,
            timestamps=True,
            deadline=60,
            ipv4=True,
            mode="uni",
            json=True,
            ca=Path("ca.pem"),
        )

    def test_long_flags_are_the_variables_in_kebab_case(self) -> None:
        words = "--count 5 --json --ca ca.pem --ipv6 --connect-timeout=9 --insecure"
        with pytest.raises(
            SettingsError, match=r"--insecure \(PINGPONG_INSECURE\) and --ca \(PINGPONG_CA\)"
        ):
            ping(*words.split(), "localhost")
        settings = ping(*words.split()[:-1], "localhost")
        assert (settings.count, settings.json_lines, settings.ipv6) == (5, True, True)
        assert (settings.ca, settings.connect_timeout) == (Path("ca.pem"), 9)

    @pytest.mark.parametrize(
        "argv", [["-c", "2", "h", "-q"], ["h", "-c2", "-q"], ["-q", "-c2", "--", "h"]]
    )
    def test_the_url_stands_anywhere(self, argv: list[str]) -> None:
        settings = ping(*argv)
        assert (settings.count, settings.quiet) == (2, True)
        assert settings.targets == ("https://h:4433/ping",)

    def test_a_flag_wins_over_its_variable(self) -> None:
        settings = ping("-c", "2", "h", PINGPONG_COUNT="1", PINGPONG_INTERVAL="7")
        assert (settings.count, settings.interval) == (2, 7)

    def test_a_flag_wins_even_over_a_wrong_variable(self) -> None:
        assert ping("-c", "2", "h", PINGPONG_COUNT="many").count == 2

    def test_every_flag_can_be_taken_back(self) -> None:
        for cls in ALL:
            for name, field in cls.model_fields.items():
                if field.annotation is bool:
                    option = f"--no-{(field.alias or name).replace('_', '-')}"
                    environ = {f"PINGPONG_{(field.alias or name).upper()}": "true"}
                    words = [] if cls is ServeSettings or cls is RunSettings else ["h"]
                    assert getattr(cls.parse(words, environ), name) is True
                    assert getattr(cls.parse([*words, option], environ), name) is False

    def test_the_url_from_its_variable(self) -> None:
        assert ping(PINGPONG_TARGETS="a.example b").targets == (
            "https://a.example:4433/ping",
            "https://b:4433/ping",
        )

    @pytest.mark.parametrize(
        ("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)]
    )
    def test_booleans_in_variables(self, text: str, value: bool) -> None:
        assert ping("h", PINGPONG_QUIET=text).quiet is value

    def test_an_empty_variable_is_unset(self) -> None:
        assert ServeSettings.parse([], {"PINGPONG_BIND_PORT": ""}).bind_port == 4433

    def test_the_process_environment_is_read_only_when_passed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PINGPONG_BIND_PORT", "9")
        assert ServeSettings().bind_port == 4433
        assert ServeSettings.parse([], {}).bind_port == 4433
        assert ServeSettings.parse([], os.environ).bind_port == 9

    def test_is_frozen_and_closed(self) -> None:
        settings: Any = ServeSettings()
        with pytest.raises(ValidationError, match="frozen"):
            settings.bind_port = 1
        with pytest.raises(ValidationError, match="Extra inputs"):
            ServeSettings(port=1)  # type: ignore[call-arg]

    def test_run_takes_the_letters_of_ping(self) -> None:
        words = "-c 5 -i 0.1 -W 2 -s 80 --mode stream -q"
        settings = RunSettings.parse(words.split(), {})
        assert (settings.count, settings.interval, settings.timeout) == (5, 0.1, 2)
        assert (settings.size, settings.mode, settings.quiet) == (80, "stream", True)


class TestMistakes:
    def test_one_line_each_with_name_value_and_what_is_allowed(self) -> None:
        assert mistakes(
            ServeSettings,
            "--bind-port",
            "70000",
            "--log-format=xml",
            PINGPONG_IDLE_TIMEOUT="0",
            PINGPONG_MAX_SESSIONS="many",
            PINGPONG_LOG_LEVEL="loud",
        ) == (
            "--bind-port 70000 (PINGPONG_BIND_PORT): must be a whole number from 0 to 65535",
            "PINGPONG_IDLE_TIMEOUT=0 (--idle-timeout): must be a number of seconds above 0, at most 31536000",
            "PINGPONG_MAX_SESSIONS=many (--max-sessions): must be a whole number from 1 to 1000000",
            "PINGPONG_LOG_LEVEL=loud (--log-level): must be debug, info, warning or error",
            "--log-format xml (PINGPONG_LOG_FORMAT): must be auto, json or console",
        )

    @pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
    def test_optional_values_too(self, value: str) -> None:
        assert mistakes(PingSettings, "h", f"--count={value}") == (
            f"--count {value} (PINGPONG_COUNT): must be a whole number from 1 to 1000000",
        )

    @pytest.mark.parametrize(
        "words", [["-c", "-1"], ["-qc", "-1"], ["-c-1"], ["--count", "-1"], ["--count=-1"]]
    )
    def test_a_negative_value_is_a_value(self, words: list[str]) -> None:
        (mistake,) = mistakes(PingSettings, *words, "h", "-4")
        assert mistake.startswith("--count -1 (PINGPONG_COUNT): must be a whole number from 1")
        (mistake,) = mistakes(PingSettings, "h", "-i", "-.5")
        assert mistake.startswith("--interval -.5 (PINGPONG_INTERVAL): must be a number of seconds")

    @pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e400", "s", "31536001"])
    @pytest.mark.parametrize("name", ["interval", "timeout", "deadline", "connect-timeout"])
    def test_durations(self, name: str, value: str) -> None:
        variable = f"PINGPONG_{name.upper().replace('-', '_')}"
        assert mistakes(PingSettings, "h", f"--{name}={value}") == (
            f"--{name} {value} ({variable}): must be a number of seconds above 0, at most 31536000",
        )

    def test_size_is_at_least_the_header(self) -> None:
        assert ping("h", "-s", str(HEADER_SIZE)).size == HEADER_SIZE
        (mistake,) = mistakes(PingSettings, "h", "-s", str(HEADER_SIZE - 1))
        assert mistake == "--size 35 (PINGPONG_SIZE): must be a whole number from 36 to 1048576"

    def test_mode_and_boolean(self) -> None:
        assert mistakes(PingSettings, "h", "--mode", "tcp", PINGPONG_INSECURE="maybe") == (
            "--mode tcp (PINGPONG_MODE): must be datagram, stream, streams or uni",
            "PINGPONG_INSECURE=maybe (--insecure): must be true or false",
        )

    def test_missing_url(self) -> None:
        assert mistakes(PingSettings) == ("TARGET is missing (or set PINGPONG_TARGETS)",)

    def test_words_that_are_none_of_ours(self) -> None:
        assert mistakes(PingSettings, "h", "--cuont=5", "--zzz") == (
            "--cuont: no such option; did you mean --count?",
            "--zzz: no such option",
        )
        assert mistakes(ServeSettings, "h") == ("h: one argument too many",)

    def test_a_renamed_setting_is_refused_with_its_new_name(self) -> None:
        for old, new in (
            ("--server=h", "TARGET... (PINGPONG_TARGETS)"),
            ("--targets", "--all (PINGPONG_ALL)"),
            ("--modes", "--mode (PINGPONG_MODE)"),
            ("--ca-file", "--ca (PINGPONG_CA)"),
        ):
            (mistake,) = mistakes(ProbeSettings, "h", old)
            assert mistake == f"{old.partition('=')[0]} is now {new}"
        environ = {"PINGPONG_URLS": "h", "PINGPONG_JSON_LINES": "1", "PINGPONG_ALL_ADDRESSES": ""}
        assert mistakes(PingSettings, **environ) == (
            "PINGPONG_URLS is now PINGPONG_TARGETS (TARGET...)",
            "PINGPONG_JSON_LINES is now PINGPONG_JSON (--json)",
        )
        assert mistakes(ProbeSettings, PINGPONG_SERVER="h", PINGPONG_TARGETS="address") == (
            "PINGPONG_SERVER is now PINGPONG_TARGETS (TARGET...)",
            "PINGPONG_TARGETS=address is now PINGPONG_ALL=true (--all):"
            " PINGPONG_TARGETS says what to ping",
        )
        assert ServeSettings.parse([], {"PINGPONG_CA_FILE": "x"}) == ServeSettings()
        assert unknown_variables(ALL, {"PINGPONG_CA_FILE": "x"}) == [
            "PINGPONG_CA_FILE is now PINGPONG_CA (--ca)"
        ]

    def test_a_near_value(self) -> None:
        (mistake,) = mistakes(ProbeSettings, "h", "--mode=uni,strems")
        assert mistake == (
            "--mode uni,strems (PINGPONG_MODE): strems must be datagram, stream, streams or uni;"
            " did you mean streams?"
        )

    def test_an_abbreviation_is_no_option(self) -> None:
        (mistake,) = mistakes(PingSettings, "h", "--coun", "5")
        assert mistake == "--coun: no such option; did you mean --count?"

    def test_a_value_is_missing_or_too_much(self) -> None:
        assert mistakes(PingSettings, "h", "-c") == (
            "--count (PINGPONG_COUNT): a value is missing",
        )
        (mistake,) = mistakes(PingSettings, "h", "--quiet=1")
        assert mistake == "--quiet (PINGPONG_QUIET): takes no value, got '1'"

    def test_an_empty_value_of_a_flag_is_a_mistake(self) -> None:
        assert mistakes(PingSettings, "h", "--ca", "") == (
            "--ca '' (PINGPONG_CA): must not be empty",
        )
        assert mistakes(ServeSettings, "--bind-host=") == (
            "--bind-host '' (PINGPONG_BIND_HOST): must not be empty",
        )

    def test_values_are_shown_on_one_line(self) -> None:
        (mistake,) = mistakes(PingSettings, "h", PINGPONG_COUNT="3\n4" + "x" * 1000)
        assert mistake.startswith(r"PINGPONG_COUNT='3\n4xxx")
        assert "(--count): must be" in mistake
        assert len(mistake) < 200

    def test_certificate_and_key_come_together(self) -> None:
        assert mistakes(ServeSettings, "--tls-cert-file", "a") == (
            "--tls-cert-file (PINGPONG_TLS_CERT_FILE) is set without"
            " --tls-key-file (PINGPONG_TLS_KEY_FILE):"
            " set both, or neither for a self-signed certificate",
        )
        (mistake,) = mistakes(ServeSettings, PINGPONG_TLS_KEY_FILE="a")
        assert mistake.startswith("--tls-key-file (PINGPONG_TLS_KEY_FILE) is set without")

    def test_contradictions(self) -> None:
        assert mistakes(PingSettings, "h", "-46") == (
            "--ipv4 (PINGPONG_IPV4) and --ipv6 (PINGPONG_IPV6) cannot be used together:"
            " leave one of them out",
        )
        (mistake,) = mistakes(PingSettings, "h", "--insecure", "--cert-hash", SHA256.hex())
        assert mistake.startswith(
            "--insecure (PINGPONG_INSECURE) and --cert-hash (PINGPONG_CERT_HASH) cannot be used"
            " together"
        )

    @pytest.mark.parametrize(
        ("cls", "words"),
        [
            (ServeSettings, ["--auth=SECRET"]),
            (ServeSettings, ["--token-file=SECRET", "--auth=token"]),
            (ServeSettings, ["--token-file=Bearer SECRET", "--auth=token"]),
            (ServeSettings, ["--token-file", "-----BEGIN PRIVATE KEY-----SECRET"]),
            (ServeSettings, ["--tls-key-file", "-----BEGIN PRIVATE KEY-----\nSECRET"]),
            (ServeSettings, ["--token=SECRET"]),
            (ServeSettings, ["--allowed-origins", "https://me:SECRET@host/"]),
            (ProbeSettings, ["h", "--token-file=SECRET"]),
            (ProbeSettings, ["h", f"--token-file=SECRET{'0' * 255}"]),  # too long for a file's name
            (ProbeSettings, ["https://me:SECRET@host/"]),
            (ProbeSettings, ["h,https://me:SECRET@host/"]),
            (PingSettings, ["h", "--count=SECRET"]),
            (PingSettings, ["h", "--cert-hash=SECRET"]),
            (PingSettings, ["https://host/?token=SECRET#x"]),
        ],
    )
    def test_a_secret_in_the_wrong_place_is_not_shown(
        self, cls: type[Settings], words: list[str]
    ) -> None:
        secret = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJwaW5ncG9uZyJ9.c2lnbmF0dXJl"
        given = [word.replace("SECRET", secret) for word in words]
        assert not any(secret in mistake for mistake in mistakes(cls, *given))
        if words[-1].startswith("--") and "=" in words[-1]:
            name, _, value = given[-1].removeprefix("--").partition("=")
            environ = {f"PINGPONG_{name.upper().replace('-', '_')}": value}
            for warning in unknown_variables(ALL, environ):
                assert secret not in warning

    def test_a_file_that_is_named_like_a_token_is_a_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        name = "0123456789abcdef0123456789abcdef"
        Path(name).touch()
        settings = ServeSettings.parse(["--auth=token", f"--token-file={name}"], {})
        assert settings.token_file == Path(name)

    def test_what_access_needs(self) -> None:
        assert mistakes(ServeSettings, "--auth=token") == (
            "--auth token (PINGPONG_AUTH) needs --token-file (PINGPONG_TOKEN_FILE)",
        )
        (mistake,) = mistakes(ServeSettings, "--token-file=tokens")
        assert "does nothing without --auth token (PINGPONG_AUTH)" in mistake

    def test_no_server_to_probe(self) -> None:
        assert mistakes(ProbeSettings) == ("TARGET is missing (or set PINGPONG_TARGETS)",)
        assert mistakes(ProbeSettings, PINGPONG_TARGETS=" , ") == (
            "PINGPONG_TARGETS=' , ' (TARGET...): must not be empty",
        )

    def test_one_of_several_values(self) -> None:
        assert mistakes(ProbeSettings, "a,http://b", "--mode=datagram,tcp") == (
            "TARGET a,http://b (PINGPONG_TARGETS): http://b must be host[:port], or begin with https://, srv:// or endpointslice://",
            "--mode datagram,tcp (PINGPONG_MODE): tcp must be datagram, stream, streams or uni",
        )

    def test_backoff_that_shrinks(self) -> None:
        (mistake,) = mistakes(ProbeSettings, "h", "--backoff-max=0.01")
        assert "must not be above --backoff-max (PINGPONG_BACKOFF_MAX)" in mistake

    @pytest.mark.parametrize(
        ("given", "mistake"),
        [
            ("", "must not be empty"),
            ("0.1,0.05", "must be ascending"),
            ("0.1,soon", "soon must be a number of seconds above 0, such as 0.001"),
            ("0,1", "0 must be a number of seconds above 0, such as 0.001"),
            ("nan", "must be a number of seconds above 0, such as 0.001"),
            (",".join(map(str, range(1, 32))), "must be at most 30"),
        ],
    )
    def test_buckets(self, given: str, mistake: str) -> None:
        (found,) = mistakes(ProbeSettings, "h", f"--rtt-buckets={given}")
        assert found.startswith("--rtt-buckets ")
        assert f": {mistake}" in found

    def test_a_view_and_lines(self) -> None:
        (mistake,) = mistakes(PingSettings, "h", "--live", "--json")
        assert mistake.startswith(
            "--live (PINGPONG_LIVE) and --json (PINGPONG_JSON) cannot be used together"
        )

    def test_secrets_are_hidden(self) -> None:
        class WithToken(Settings):
            verb = "token"
            about = "Has a secret."

            token: Annotated[SecretStr, Field(max_length=3)] = SecretStr("abc")

        assert WithToken().masked() == {"token": "**********"}
        (mistake,) = mistakes(WithToken, PINGPONG_TOKEN="hunter2")
        assert mistake.startswith("PINGPONG_TOKEN=*** (TOKEN):")
        assert "hunter2" not in mistake

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("--ipv4", "the system's authorities"),
            ("--ca=/etc/ca.crt", "the authorities in /etc/ca.crt"),
            (f"--cert-hash={SHA256.hex()}", f"the certificate with SHA-256 {SHA256.hex()}"),
            ("--insecure", "any certificate"),
        ],
    )
    def test_whom_is_trusted_can_be_told(self, option: str, said: str) -> None:
        assert ping(option, "localhost").trust == said


class TestUnknownVariables:
    def test_names_the_nearest(self) -> None:
        environ = {"PINGPONG_BIND_PROT": "1", "PINGPONG_ZZZZZ": "1", "PATH": "/bin"}
        assert unknown_variables(ALL, environ) == [
            "PINGPONG_BIND_PROT is not a setting; did you mean PINGPONG_BIND_PORT?",
            "PINGPONG_ZZZZZ is not a setting",
        ]

    def test_a_setting_of_any_class_is_known(self) -> None:
        environ = {"PINGPONG_COUNT": "1", "PINGPONG_BIND_PORT": "1"}
        assert unknown_variables(ALL, environ) == []
        assert len(unknown_variables([ServeSettings], environ)) == 1

    def test_names_are_upper_case(self) -> None:
        environ = {"PINGPONG_Bind_Port": "1"}
        assert ServeSettings.parse([], environ).bind_port == 4433
        assert unknown_variables(ALL, environ) == [
            "PINGPONG_Bind_Port is not a setting; did you mean PINGPONG_BIND_PORT?"
        ]

    @pytest.mark.parametrize("service", ["PINGPONG", "PINGPONG_SERVER", "PINGPONG_A_B_2"])
    def test_what_kubelet_sets_is_passed_over(self, service: str) -> None:
        link = f"{service}_PORT_4433_UDP"
        environ = {
            f"{service}_SERVICE_HOST": "10.96.0.7",
            f"{service}_SERVICE_PORT": "4433",
            f"{service}_SERVICE_PORT_WEBTRANSPORT": "4433",
            f"{service}_PORT": "udp://10.96.0.7:4433",
            link: "udp://10.96.0.7:4433",
            f"{link}_PROTO": "udp",
            f"{link}_PORT": "4433",
            f"{link}_ADDR": "10.96.0.7",
            f"{service}_PORT_8080_TCP_ADDR": "10.96.0.7",
        }
        assert unknown_variables(ALL, environ) == []

        environ = {"PINGPONG_ADMIN_PORT": "tcp://10.0.0.9:8080"}
        assert ServeSettings.parse([], environ).admin_port == 8080
        assert unknown_variables(ALL, environ) == []

    def test_what_this_projects_tests_read_is_passed_over(self) -> None:
        assert unknown_variables(ALL, {"PINGPONG_TEST_REQUIRE_ALL": "1"}) == []

    def test_a_port_of_a_persons_hand_is_not_kubelets(self) -> None:
        assert unknown_variables(ALL, {"PINGPONG_PORT": "4433"}) == [
            "PINGPONG_PORT is not a setting"
        ]
