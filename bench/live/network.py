"""The network that is measured: chain, broker, gateway, worker and three stages in processes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plait.chain.deployments import Deployment
from plait.chain.lane import Patience
from plait.chain.reader import ChainReader
from plait.chain.writer import ChainWriter
from plait.protocol.typed import Key
from plait_node.home import Home
from plait_node.localnet import Child, Network
from plait_node.localnet.plan import PAYER_FUNDS
from plait_node.selector.facts import HardwareFacts
from plait_node.selector.observe import HARDWARE, save_hardware

__all__ = ["OneRoute"]

_SPARE: Final = "stage-spare"
_WORKER: Final = "worker"
_PATIENCE: Final = Patience(deadline_s=60.0, poll_s=0.02)


@dataclass(kw_only=True)
class OneRoute(Network):
    """A local network without the spare stage, so that all jobs take one route: prefixes are kept per payer and route.

    The worker's machine was measured before it starts: without its facts nothing is predicted.
    """

    hardware: HardwareFacts

    def start_node(self, name: str) -> Child | None:
        """Start a node, unless it is the spare."""
        if name == _SPARE:
            return None
        if name == _WORKER:
            save_hardware(self.selector_folder / HARDWARE, self.hardware)
        return super().start_node(name)

    async def until_ready(self, name: str) -> None:
        """Wait until a node serves, unless it is the spare."""
        if name != _SPARE:
            await super().until_ready(name)

    @property
    def selector_folder(self) -> Path:
        """Return where the worker's selector keeps its files."""
        return Home(self.folder / "nodes" / _WORKER).selector_folder

    @property
    def rpc(self) -> str:
        """Return the chain's URL."""
        return self._anvil.url

    @property
    def deployment(self) -> Path:
        """Return the file of the contracts."""
        return self._shared.deployment

    async def wallet(self) -> Key:
        """Return a new payer with ether and tokens; the local token lets everybody mint."""
        key = Key.generate()
        await self._anvil.fund(key.address, ether=100)
        async with await ChainReader.connect(self.rpc, Deployment.load(self.deployment)) as reader:
            await ChainWriter(reader, key, patience=_PATIENCE).mint(key.address, PAYER_FUNDS)
        return key
