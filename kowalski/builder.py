"""How a program says what it wants before it is connected: `Kowalski.builder()`."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from kowalski.cluster import ClusterConfig
from kowalski.errors import ConfigError, DiscoveryTimeout
from kowalski.node import places
from kowalski.node_link import NodeLink
from kowalski.own_node import open_own_node

if TYPE_CHECKING:
    from kowalski.client import Kowalski

LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Settings:
    """What was said to the builder."""

    model: str | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    data_dir: Path | None = None
    exo_url: str | None = None
    own_node: tuple[str, ...] | None = None


class Builder:
    """Each `with_` returns a builder with that changed; `build` connects."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()

    def with_model(self, model: str) -> Builder:
        """The model of every task and call that names no other.

        One that no device serves is loaded when the client is built, where their owners allow it,
        if an exo API or a sharding strategy was named.
        """
        return self._with(model=model)

    def with_cluster(self, config: ClusterConfig) -> Builder:
        return self._with(cluster=config)

    def with_exo_api(self, url: str) -> Builder:
        """Use the exo at this address; the local node must have it as a backend.

        An own node is started with it. Of one that runs it is asked.
        """
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"exo API {url}: not an http URL")
        return self._with(exo_url=url.rstrip("/"))

    def with_options(self, **options: Any) -> Builder:
        """Options of `Kowalski.execute` for every task that does not say otherwise."""
        return self._with(options={**self._settings.options, **options})

    def with_node(self, data_dir: str | Path) -> Builder:
        """The running node that keeps its state there, where there are several."""
        return self._with(data_dir=Path(data_dir))

    def with_own_node(self, *options: str) -> Builder:
        """Start a node for the length of the client, with options of `kowalski-node start`.

        It listens on loopback, looks for nobody unless told to (`--join`, `--peer`), and keeps its
        state in a temporary folder unless `with_node` names another.
        """
        return self._with(own_node=options)

    def _with(self, **changed: Any) -> Builder:
        return Builder(replace(self._settings, **changed))

    def build(self) -> Building:
        """`async with builder.build() as k`, or `k = await builder.build()` and `await k.aclose()`.

        Raises:
            NetworkError: no node runs here, or an own one did not come up.
            DiscoveryTimeout: not as many devices as wanted were there in time.
            ConfigError: the node that runs does not have the exo API as a backend.
            NoDevicesAvailable, DeviceFailed: the model had to be loaded, and could not be.
        """
        return Building(self._settings)


class Building:
    """A client that is about to be."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Kowalski | None = None

    def __await__(self) -> Generator[Any, Any, Kowalski]:
        return self._open().__await__()

    async def __aenter__(self) -> Kowalski:
        self._client = await self._open()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        assert self._client is not None
        await self._client.aclose()

    async def _open(self) -> Kowalski:
        from kowalski.client import Kowalski  # noqa: PLC0415 each is made of the other

        settings = self._settings
        async with AsyncExitStack() as stack:
            link = NodeLink(await self._control_path(stack))
            client = Kowalski(link, settings)
            await self._wait_for_devices(client)
            if settings.exo_url is not None:
                await self._check_exo(link, settings.exo_url)
            await self._load(client)
            client.keep(stack.pop_all())
            return client

    async def _control_path(self, stack: AsyncExitStack) -> Path:
        settings = self._settings
        if settings.own_node is not None:
            options = settings.own_node
            if settings.exo_url is not None:
                options = (*options, "--backend", settings.exo_url)
            node = open_own_node(settings.data_dir, options)
            return places.control_path(await stack.enter_async_context(node))
        file = places.config_file(None, os.environ)
        return places.control_path(places.data_dir(settings.data_dir, os.environ, file))

    async def _wait_for_devices(self, client: Kowalski) -> None:
        cluster = self._settings.cluster
        found = 0
        with anyio.move_on_after(cluster.device_discovery_timeout_s):
            while True:
                found = len(await client.usable_devices())
                if found >= cluster.devices_min:
                    return
                await anyio.sleep(LOOK_S)
        raise DiscoveryTimeout(
            f"{found} of {cluster.devices_min} devices ({cluster.device_filter}) within"
            f" {cluster.device_discovery_timeout_s:g} s"
        )

    async def _check_exo(self, link: NodeLink, url: str) -> None:
        backends = [str(one).rstrip("/") for one in (await link.ask("status"))["backends"]]
        if url not in backends:
            known = ", ".join(backends) or "none"
            raise ConfigError(
                f"the node has no backend {url} that answers (it has: {known}); start it with"
                f" --backend {url}"
            )

    async def _load(self, client: Kowalski) -> None:
        settings = self._settings
        wants = settings.exo_url is not None or settings.cluster.sharding_strategy != "auto"
        if settings.model is None or not wants or settings.model in await client.models():
            return
        await client.load_model(settings.model)
