"""The settings of a node and where each came from: flag, environment, file, default, in that order.

Only `node/app.py` sees a whole `NodeConfig`; rooms are given the few values they need.
"""

from __future__ import annotations

import difflib
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from kowalski.node import places
from kowalski.node.backends.model_files import is_model_file
from kowalski.node.complaints import first_complaint
from kowalski.node.control_messages import ROLES, Role
from kowalski.node.core.availability import Availability, parse_hours
from kowalski.node.repl import owner_limits
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import Address, PeerId

if TYPE_CHECKING:
    from collections.abc import Mapping

P2P_PORT = 4170
HTTP_PORT = 4171
REPL_SLOTS_MAX = 256

# Names that other programs gave these settings; ours win.
FOREIGN_VARIABLES: Mapping[str, str] = {
    "ollama_host": "OLLAMA_HOST",
    "openai_base_url": "OPENAI_BASE_URL",
    "api_key": "OPENAI_API_KEY",
    "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
}

_MULTIADDR = re.compile(
    r"(?P<address>/(?:ip4|ip6|dns|dns4|dns6)/[^/\s]{1,253}/tcp/\d{1,5}(?:/[^/\s]+)*)"
    r"/p2p/(?P<peer>[1-9A-HJ-NP-Za-km-z]{8,64})"
)


class StaticPeer(NamedTuple):
    peer: PeerId
    address: Address


def _multiaddr(text: str) -> str:
    if len(text) > 400 or _MULTIADDR.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not like /ip4/192.168.1.7/tcp/4170/p2p/12D3KooW...")
    return text


def _http_url(text: str) -> str:
    """An address of a model server, scheme added where it is missing; `backends` reads the rest."""
    if is_model_file(text):
        return text
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or re.search(r"[\s\x00-\x1f]", text):
        raise ValueError("expected a URL such as http://127.0.0.1:8080")
    return text.rstrip("/")


def _origin(text: str) -> str:
    if re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]{1,300}", text) is None:
        raise ValueError(f"{text!r} is not like https://chat.example.org")
    return text


def _quiet_hours(text: str) -> str:
    parse_hours(text)
    return text.strip()


def _repl_limit(text: str) -> str:
    owner_limits.read(text)
    return text


Port = Annotated[int, Field(ge=0, le=65535)]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9.:-]{1,253}$")]
Origin = Annotated[str, AfterValidator(_origin)]
Url = Annotated[str, AfterValidator(_http_url)]


class NodeConfig(BaseModel):
    """Every setting, checked. Its fields are the keys of the file; `KOWALSKI_<FIELD>` sets each."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True)

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
    data_dir: Path
    join: SecretStr | None = None
    p2p_port: Port = P2P_PORT
    http_port: Port = HTTP_PORT
    http_host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    http_hosts: Annotated[tuple[HostName, ...], Field(strict=False, max_length=100)] = ()
    http_origins: Annotated[tuple[Origin, ...], Field(strict=False, max_length=100)] = ()
    no_http: bool = False
    listen_host: Annotated[str, Field(min_length=1, max_length=253)] = "0.0.0.0"  # noqa: S104
    peers: Annotated[
        tuple[Annotated[str, AfterValidator(_multiaddr)], ...],
        Field(strict=False, max_length=1000),
    ] = ()
    no_mdns: bool = False
    no_repl: bool = False
    roles: Annotated[tuple[Role, ...], Field(strict=False)] = ROLES
    unsafe_repl: bool = False
    repl_slots: Annotated[int, Field(ge=1, le=REPL_SLOTS_MAX)]
    # When the device is its owner's alone, and how much of it is everybody's otherwise.
    standby: bool = False
    cpu_share: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0
    quiet_hours: Annotated[str, AfterValidator(_quiet_hours)] = ""
    on_battery: bool = False
    repl_limits: Annotated[
        tuple[Annotated[str, AfterValidator(_repl_limit)], ...], Field(strict=False, max_length=200)
    ] = ()
    repl_network: Literal["none", "internet", "lan"] = "none"
    backends: Annotated[tuple[Url, ...], Field(strict=False, max_length=100)] = ()
    # As Ollama's own variable: scheme and port may be missing; `backends.probing` reads it.
    ollama_host: Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]{1,300}$")] | None = None
    openai_base_url: Url | None = None
    api_key: SecretStr | None = None
    # Who may have models fetched, loaded and deleted here; what they may take, and what makes room.
    model_changes: Literal["nobody", "owner", "members"] = "owner"
    models_gb: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    models_evict: Literal["never", "pulled", "any"] = "never"
    # How long a node that is told to stop may take to hand over what it does.
    drain_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 5.0
    otlp_endpoint: Url | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["pretty", "json"] = "pretty"

    @field_validator("roles", mode="after")
    @classmethod
    def _without_repl(cls, roles: tuple[Role, ...], info: ValidationInfo) -> tuple[Role, ...]:
        refused = {"repl"} if info.data.get("no_repl") else set[str]()
        return tuple(role for role in ROLES if role in roles and role not in refused)

    @property
    def availability(self) -> Availability:
        return Availability(
            self.cpu_share, parse_hours(self.quiet_hours), self.on_battery, self.standby
        )

    @property
    def static_peers(self) -> tuple[StaticPeer, ...]:
        found = (_MULTIADDR.fullmatch(peer) for peer in self.peers)
        return tuple(
            StaticPeer(PeerId(match["peer"]), Address(match["address"])) for match in found if match
        )

    @property
    def identity_path(self) -> Path:
        return self.data_dir / "identity.key"

    @property
    def mesh_path(self) -> Path:
        return self.data_dir / "mesh.json"

    @property
    def invites_path(self) -> Path:
        return self.data_dir / "invites.json"

    @property
    def roster_path(self) -> Path:
        return self.data_dir / "roster.json"

    @property
    def incarnation_path(self) -> Path:
        return self.data_dir / "incarnation"

    @property
    def peers_path(self) -> Path:
        return self.data_dir / "peers.json"

    @property
    def models_bytes_max(self) -> int | None:
        return None if self.models_gb is None else self.models_gb * 10**9

    @property
    def model_book_path(self) -> Path:
        return self.data_dir / "models.json"

    @property
    def fold_book_path(self) -> Path:
        return self.data_dir / "folds.json"

    @property
    def ledger_path(self) -> Path:
        return self.data_dir / "ledger.sqlite"

    @property
    def copies_path(self) -> Path:
        """Of journals of tasks that others have submitted."""
        return self.data_dir / "copies.sqlite"

    @property
    def content_path(self) -> Path:
        """A directory: what travels by content hash."""
        return self.data_dir / "content"

    @property
    def http_token_path(self) -> Path:
        return self.data_dir / "http_token"

    @property
    def scratch_path(self) -> Path:
        """A directory: files that are gone when what needed them is done."""
        return self.data_dir / "scratch"

    @property
    def control_path(self) -> Path:
        return places.control_path(self.data_dir)


class Setting(NamedTuple):
    """One line of `config show`."""

    key: str
    value: object
    source: str


def load_config(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[NodeConfig, Mapping[str, str]]:
    """The settings and, for each, its source.

    Of `flags`, keyed by field, None and empty tuples count as not given. An empty variable counts
    as not set. `file` None: `KOWALSKI_CONFIG`, or the usual place if a file is there.

    Raises:
        ConfigError: unreadable file, unknown key, or a value that will not do; one line that names
            the key and where it was set.
    """
    values: dict[str, object] = {
        "name": platform.node().split(".")[0][:64] or "node",
        "data_dir": places.default_data_dir(environ),
        "repl_slots": min(os.cpu_count() or 1, REPL_SLOTS_MAX),
    }
    sources = dict.fromkeys(NodeConfig.model_fields, "default")
    path = places.config_file(file, environ)
    for layer in (
        _from_file(path) if path is not None else {},
        _from_environment(environ),
        _from_flags(flags),
    ):
        for key, (value, source) in layer.items():
            values[key] = value
            sources[key] = source
    try:
        values["data_dir"] = places.absolute(_path(values["data_dir"]))
        config = NodeConfig.model_validate(values)
    except ConfigError as error:
        raise ConfigError(f"{sources['data_dir']}: {error}") from error
    except ValidationError as error:
        key = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        raise ConfigError(f"{sources[key]}: {first_complaint(error)}") from error
    if config.no_repl:
        sources["roles"] = f"{sources['roles']}, {sources['no_repl']}"
    return config, sources


def settings(config: NodeConfig, sources: Mapping[str, str]) -> tuple[Setting, ...]:
    """What `config show` prints; secrets only say that they are set."""
    return tuple(
        Setting(key, _shown(getattr(config, key)), sources[key]) for key in NodeConfig.model_fields
    )


def _shown(value: object) -> object:
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        # The password in the address of a backend is its key.
        return re.sub(r"(?<=://)[^/@]*@", "(not shown)@", value)
    return [_shown(item) for item in value] if isinstance(value, tuple) else value


_Layer = dict[str, tuple[object, str]]


def _from_file(path: Path) -> _Layer:
    layer: _Layer = {}
    for key, value in places.read_config_file(path).items():
        if key not in NodeConfig.model_fields:
            raise ConfigError(f"{path}: unknown key {key!r}{_suggestion(key)}")
        layer[key] = (value, str(path))
    return layer


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for key in NodeConfig.model_fields:
        for variable in (FOREIGN_VARIABLES.get(key), f"KOWALSKI_{key.upper()}"):
            if variable is not None and environ.get(variable):
                layer[key] = (_from_text(key, environ[variable], variable), variable)
    for variable in environ:
        key = variable.removeprefix("KOWALSKI_").lower()
        # Others may use the prefix for their own ends; a near miss is a typing error of ours.
        if variable.startswith("KOWALSKI_") and key not in {*NodeConfig.model_fields, "config"}:
            near = _nearest(key)
            if near is not None:
                raise ConfigError(
                    f"unknown variable {variable}; did you mean KOWALSKI_{near.upper()}?"
                )
    return layer


def _from_flags(flags: Mapping[str, object]) -> _Layer:
    layer: _Layer = {}
    for key, value in flags.items():
        if key not in NodeConfig.model_fields:
            raise ConfigError(f"unknown setting {key!r}{_suggestion(key)}")
        flag = f"--{FLAGS.get(key, key).replace('_', '-')}"
        if value is None or value == ():
            continue
        layer[key] = (_from_text(key, value, flag) if isinstance(value, str) else value, flag)
    return layer


# Flags that may be given several times are named in the singular.
FLAGS: Mapping[str, str] = {
    "peers": "peer",
    "backends": "backend",
    "repl_limits": "repl_limit",
    "http_hosts": "http_name",
    "http_origins": "http_origin",
}

_BOOLEANS: Mapping[str, bool] = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip

_FLOATS = frozenset({"drain_s", "cpu_share"})
_INTEGERS = frozenset({"p2p_port", "http_port", "repl_slots", "models_gb"})
_SWITCHES = frozenset({"no_http", "no_mdns", "no_repl", "unsafe_repl", "standby", "on_battery"})
_LISTS = frozenset({"http_hosts", "http_origins", "peers", "roles", "repl_limits", "backends"})


def _from_text(key: str, text: str, source: str) -> object:
    """What a variable or a flag says, in the type that the same value would have in the file."""
    if key in _INTEGERS:
        if not re.fullmatch(r"\s*-?[0-9]{1,12}\s*", text):
            raise ConfigError(f"{source}: {key}: expected a whole number, not {text!r}")
        return int(text)
    if key in _FLOATS:
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"{source}: {key}: expected a number, not {text!r}") from None
    if key in _SWITCHES:
        value = _BOOLEANS.get(text.strip().lower())
        if value is None:
            raise ConfigError(f"{source}: {key}: expected true or false, not {text!r}")
        return value
    if key in _LISTS:
        return [part for part in re.split(r"[,\s]+", text) if part]
    return text


def _path(value: object) -> str | Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError("data_dir: expected a path")
    return value


def _nearest(key: str) -> str | None:
    near = difflib.get_close_matches(key, NodeConfig.model_fields, n=1, cutoff=0.75)
    return near[0] if near else None


def _suggestion(key: str) -> str:
    near = difflib.get_close_matches(key, NodeConfig.model_fields, n=1, cutoff=0.4)
    return (
        f"; did you mean {near[0]!r}?"
        if near
        else f"; the keys are {', '.join(NodeConfig.model_fields)}"
    )
