"""What can go wrong around the roles; each part of the node draws its own tree beside its code.

NodeError
|- ConfigError     a node's TOML file, or a key file, is not usable
|- DrainError      a node could not be told to stop, or has not stopped in time
|- DiskFullError   there is no room on the node's disk for the journals of more jobs
|- PortTakenError  an HTTP face cannot listen where it should
|- StartError      a node cannot start, or a part of it failed
`- LocalnetError   a local network could not be started
"""

from __future__ import annotations

from plait.protocol.errors import PlaitError


class NodeError(PlaitError):
    """Root of what the node's own frame raises."""

    code = "node"


class ConfigError(NodeError):
    """A file of the operator is missing or wrong; the text names each field to mend."""

    code = "config"


class DrainError(NodeError):
    """No node could be told to stop, or it has not stopped in time; the text says which and what to do."""

    code = "drain"


class DiskFullError(NodeError):
    """The disk has no room for the journals of more jobs; another node may take it, or this one later."""

    code = "busy"
    retry = True


class PortTakenError(NodeError):
    """An HTTP face cannot listen where it should: free the port or name another."""

    code = "listen"


class StartError(NodeError):
    """A node cannot start, or a part of it failed; the text is the part's own."""

    code = "start"


class LocalnetError(NodeError):
    """A process of a local network did not come up."""

    code = "localnet"
