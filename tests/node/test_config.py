"""Settings: who wins, and what the operator is told about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node import config, places
from kowalski.node.config import NodeConfig, load_config, settings
from kowalski.protocol.errors import ConfigError

PEER = "/ip4/192.168.1.7/tcp/4170/p2p/12D3KooWGRUfJCFRJLoZgC6UyNWjMFJfSYrzLxu6ZXVtoH5Vsm5M"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment that names empty places, so that no file of this machine is read."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "etc"), "XDG_DATA_HOME": str(tmp_path / "share")}


@pytest.mark.parametrize(
    ("flag", "variable", "in_file", "expected", "source"),
    [
        (None, None, None, 4170, "default"),
        (None, None, 1, 1, "config.toml"),
        (None, "2", 1, 2, "KOWALSKI_P2P_PORT"),
        (3, "2", 1, 3, "--p2p-port"),
        (3, None, None, 3, "--p2p-port"),
        (None, "", 1, 1, "config.toml"),
        (0, "2", 1, 0, "--p2p-port"),
    ],
)
def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    tmp_path: Path,
    bare: dict[str, str],
    flag: int | None,
    variable: str | None,
    in_file: int | None,
    expected: int,
    source: str,
) -> None:
    file = written(tmp_path, "" if in_file is None else f"p2p_port = {in_file}\n")
    environ = bare if variable is None else {**bare, "KOWALSKI_P2P_PORT": variable}
    loaded, sources = load_config({"p2p_port": flag}, environ, file)
    assert loaded.p2p_port == expected
    assert sources["p2p_port"].endswith(source)


def test_every_field_has_a_default_and_a_source(bare: dict[str, str], tmp_path: Path) -> None:
    loaded, sources = load_config({}, bare)
    assert set(sources) == set(NodeConfig.model_fields)
    assert set(sources.values()) == {"default"}
    assert loaded.data_dir == tmp_path / "share" / "kowalski"
    assert 1 <= loaded.repl_slots <= 256
    assert loaded.roles == ("submit", "coordinate", "repl", "infer", "fold")


def test_the_file_in_the_usual_place_is_read(bare: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "etc" / "kowalski").mkdir(parents=True)
    written(tmp_path / "etc" / "kowalski", 'name = "desk"\n')
    loaded, sources = load_config({}, bare)
    assert loaded.name == "desk"
    assert sources["name"] == str(tmp_path / "etc" / "kowalski" / "config.toml")


def test_foreign_variables_are_heard_and_ours_win(bare: dict[str, str]) -> None:
    environ = {**bare, "OPENAI_API_KEY": "a", "OPENAI_BASE_URL": "http://10.0.0.1:8000/v1/"}
    loaded, sources = load_config({}, environ)
    assert loaded.api_key is not None
    assert loaded.api_key.get_secret_value() == "a"
    assert loaded.openai_base_url == "http://10.0.0.1:8000/v1"
    assert sources["api_key"] == "OPENAI_API_KEY"
    loaded, sources = load_config({}, {**environ, "KOWALSKI_API_KEY": "b"})
    assert loaded.api_key is not None
    assert loaded.api_key.get_secret_value() == "b"


def test_lists_come_from_repeated_flags_commas_and_arrays(
    bare: dict[str, str], tmp_path: Path
) -> None:
    urls = ("http://127.0.0.1:1", "http://127.0.0.1:2")
    from_flags, sources = load_config({"backends": urls}, bare)
    assert sources["backends"] == "--backend"
    from_variable, _ = load_config({}, {**bare, "KOWALSKI_BACKENDS": ",".join(urls)})
    file = written(tmp_path, f"backends = {list(urls)!r}\n")
    from_file, _ = load_config({"backends": ()}, bare, file)
    assert from_flags.backends == from_variable.backends == from_file.backends == urls


def test_no_repl_takes_the_role_away_wherever_either_was_set(bare: dict[str, str]) -> None:
    loaded, sources = load_config(
        {"no_repl": True}, {**bare, "KOWALSKI_ROLES": "repl,submit,submit"}
    )
    assert loaded.roles == ("submit",)
    assert sources["roles"] == "KOWALSKI_ROLES, --no-repl"


def test_a_static_peer_is_split_into_who_and_where(bare: dict[str, str]) -> None:
    loaded, _ = load_config({"peers": (PEER,)}, bare)
    assert loaded.static_peers == (
        ("12D3KooWGRUfJCFRJLoZgC6UyNWjMFJfSYrzLxu6ZXVtoH5Vsm5M", "/ip4/192.168.1.7/tcp/4170"),
    )


def test_secrets_are_not_shown(bare: dict[str, str]) -> None:
    flags = {
        "join": "kw1:hush",
        "api_key": "sk-hush",
        "backends": ("http://:hush@h:1/v1",),
        "openai_base_url": "me:hush@h:1",
    }
    loaded, sources = load_config(flags, bare)
    shown = settings(loaded, sources)
    assert "hush" not in repr(shown)
    assert "hush" not in repr((loaded.join, loaded.api_key))
    assert {line.key for line in shown} == set(NodeConfig.model_fields)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("p2p_prot = 1\n", ("config.toml", "'p2p_prot'", "did you mean 'p2p_port'")),
        ("zzzzzzzz = 1\n", ("'zzzzzzzz'", "the keys are")),
        ('p2p_port = "4170"\n', ("config.toml", "p2p_port", "integer")),
        ("p2p_port = 70000\n", ("p2p_port", "65535")),
        ("no_mdns = 1\n", ("no_mdns", "boolean")),
        ("data_dir = 7\n", ("config.toml", "data_dir")),
        ('roles = ["cook"]\n', ("roles", "'submit'")),
        ('peers = ["/ip4/1.2.3.4/tcp/1"]\n', ("peers.0", "/p2p/")),
        ('backends = ["ftp://h:1"]\n', ("backends.0", "URL")),
        ('ollama_host = "a b"\n', ("ollama_host",)),
        ('backends = ["http://h:99999"]\n', ("backends.0", "URL")),
        ('repl_limits = ["memory=1"]\n', ("repl_limits.0", "memory is between")),
        ('name = "a\\u001bb"\n', ("name",)),
        ('log_level = "loud"\n', ("log_level", "'debug'")),
        ("name = \n", ("config.toml", "not TOML")),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_key_and_file(
    tmp_path: Path, bare: dict[str, str], text: str, parts: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({}, bare, written(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("KOWALSKI_P2P_PORT", "many", "expected a whole number"),
        ("KOWALSKI_NO_MDNS", "perhaps", "expected true or false"),
        ("KOWALSKI_P2P_PROT", "1", "did you mean KOWALSKI_P2P_PORT?"),
        ("KOWALSKI_CONFIG", "/nonexistent/config.toml", "no such file"),
        ("KOWALSKI_REPL_SLOTS", "0", "KOWALSKI_REPL_SLOTS"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    bare: dict[str, str], variable: str, value: str, part: str
) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        load_config({}, {**bare, variable: value})
    assert part in str(caught.value)


def test_variables_of_others_with_our_prefix_are_left_alone(bare: dict[str, str]) -> None:
    load_config({}, {**bare, "KOWALSKI_CI_RUN_NUMBER": "7"})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (2 << 20)])
def test_a_file_that_is_no_config_is_refused(
    tmp_path: Path, bare: dict[str, str], content: bytes
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config({}, bare, path)


def test_a_directory_is_no_config_file(tmp_path: Path, bare: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="directory"):
        load_config({}, bare, tmp_path)


def test_every_flag_field_and_variable_agree_with_the_type(bare: dict[str, str]) -> None:
    texts = {
        "p2p_port": "1",
        "http_port": "1",
        "repl_slots": "1",
        "repl_network": "internet",
        "repl_limits": "memory=1G, js.cell=5m",
        "http_origins": "https://chat.example",
        "no_http": "no",
        "no_mdns": "yes",
        "standby": "yes",
        "cpu_share": "0.5",
        "quiet_hours": "22:00-07:00",
        "on_battery": "no",
        "no_repl": "off",
        "unsafe_repl": "1",
        "peers": PEER,
        "roles": "submit",
        "backends": "http://h:1",
        "ollama_host": "h",
        "openai_base_url": "http://h",
        "model_changes": "nobody",
        "models_gb": "20",
        "models_evict": "any",
        "drain_s": "2.5",
        "otlp_endpoint": "http://h:4318",
        "log_level": "debug",
        "log_format": "json",
    }
    for key in NodeConfig.model_fields:
        text = texts.get(key, "text")
        loaded, sources = load_config({}, {**bare, f"KOWALSKI_{key.upper()}": text})
        assert sources[key].startswith(f"KOWALSKI_{key.upper()}")
        assert config.settings(loaded, sources)


def test_the_command_line_and_the_node_agree_where_the_node_lives(
    tmp_path: Path, bare: dict[str, str]
) -> None:
    file = written(tmp_path, f'data_dir = "{tmp_path}/from-file"\n')
    for environ in (bare, {**bare, "KOWALSKI_DATA_DIR": str(tmp_path / "from-variable")}):
        for named in (None, file):
            for flag in (None, tmp_path / "from-flag"):
                loaded, _ = load_config({"data_dir": flag}, environ, named)
                assert places.data_dir(flag, environ, named) == loaded.data_dir
                assert places.control_path(loaded.data_dir) == loaded.control_path


def test_a_share_of_the_processors_is_read_from_everywhere(
    bare: dict[str, str], tmp_path: Path
) -> None:
    file = written(tmp_path, "cpu_share = 0.5\nquiet_hours = '22:00-07:00'\non_battery = true\n")
    loaded, _ = load_config({}, bare, file)
    assert loaded.availability.cpu_share == 0.5
    assert loaded.availability.works_on_battery
    assert loaded.availability.quiet_hours[0].start == 22 * 60
    loaded, _ = load_config({"cpu_share": 0.25}, {**bare, "KOWALSKI_CPU_SHARE": "0.75"}, file)
    assert loaded.cpu_share == 0.25
    loaded, _ = load_config({}, {**bare, "KOWALSKI_CPU_SHARE": "0.75"}, file)
    assert loaded.cpu_share == 0.75


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("KOWALSKI_CPU_SHARE", "half", "KOWALSKI_CPU_SHARE: cpu_share: expected a number"),
        ("KOWALSKI_CPU_SHARE", "0", "KOWALSKI_CPU_SHARE: cpu_share: "),
        ("KOWALSKI_QUIET_HOURS", "late", "quiet_hours: .*'late' is not like 22:00-07:00"),
        ("KOWALSKI_STANDBY", "maybe", "expected true or false"),
    ],
)
def test_limits_of_the_owner_that_make_no_sense_are_told(
    bare: dict[str, str], variable: str, value: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config({}, {**bare, variable: value})
