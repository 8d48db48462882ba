"""The files of a broker cluster: one folder per server, a seed per user, an authority that the servers' names hang on.

```
FOLDER/ca.pem                 for every node: `ca` in [broker]
FOLDER/operator/              ca.key, operator.seed: keep these off the servers and off the nodes
FOLDER/seeds/NAME.seed        for one node each: `nkey` in [broker]
FOLDER/SERVER/                nats.conf, users.conf, ca.pem, server.pem, server.key: for that server's host
```
Written again, it keeps authority, certificates and seeds, and changes who may do what.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plait.protocol.ids import Address, Hash
from plait_node.broker.certificates import Pair, make_authority, make_server
from plait_node.broker.groups import groups_of
from plait_node.broker.nkeys import Nkey
from plait_node.broker.permissions import User, gateway_user, operator_user, worker_user

_SERVER = """\
# {name}: one of the servers of this cluster. Start it in its own folder: nats-server -c nats.conf
server_name: {name}
listen: "{listen}:{port}"
client_advertise: "{host}:{port}"
pid_file: nats.pid
log_file: nats.log
logfile_size_limit: 16MB
max_payload: 1048576

jetstream {{ store_dir: store, sync_interval: 5s }}

# Clients check the server's name; the key that they sign with says who they are (users.conf).
tls {{ cert_file: server.pem, key_file: server.key, timeout: 5 }}

cluster {{
  name: plait
  listen: "{listen}:{cluster_port}"
  # Only servers hold certificates of this authority, so they need no password among themselves.
  tls {{ cert_file: server.pem, key_file: server.key, ca_file: ca.pem, verify: true, timeout: 5 }}
  routes: [
{routes}
  ]
}}

include users.conf
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """One server: the name of its host as everybody else reaches it, and its two ports."""

    name: str
    host: str
    port: int
    cluster_port: int
    listen: str = "0.0.0.0"  # noqa: S104 - a broker is there to be reached; TLS and keys say by whom


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """A worker's owner, and the model and device that its groups are of."""

    owner: Address
    model: Hash
    device: str

    @property
    def name(self) -> str:
        """Return what its seed's file is called."""
        return f"worker-{self.owner.hex()[:16]}-{self.model.hex()[:16]}-{self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """Who serves, and who may come in."""

    servers: Sequence[ServerPlan]
    gateways: Sequence[Address]
    workers: Sequence[WorkerPlan]


def write_cluster(folder: Path, plan: ClusterPlan) -> None:
    """Write all files; what is secret is readable by its owner alone."""
    authority = _authority(folder)
    users = users_config(_users(folder, plan))
    for server in plan.servers:
        place = folder / server.name
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "server.key").exists():
            pair = make_server(authority, server.host)
            (place / "server.pem").write_bytes(pair.pem)
            _write_secret(place / "server.key", pair.key_pem)
        (place / "ca.pem").write_bytes(authority.pem)
        (place / "nats.conf").write_text(server_config(server, plan.servers), encoding="utf-8")
        (place / "users.conf").write_text(users, encoding="utf-8")


def server_config(server: ServerPlan, servers: Sequence[ServerPlan]) -> str:
    """Return one server's configuration."""
    others = [each for each in servers if each.name != server.name]
    routes = "\n".join(f'    "nats-route://{each.host}:{each.cluster_port}"' for each in others)
    return _SERVER.format(
        name=server.name,
        listen=server.listen,
        host=server.host,
        port=server.port,
        cluster_port=server.cluster_port,
        routes=routes,
    )


def users_config(users: Sequence[User]) -> str:
    """Return who may connect and what for; it holds public keys alone."""
    return "authorization {\n  users: [\n" + "".join(_user(user) for user in users) + "  ]\n}\n"


def _user(user: User) -> str:
    return (
        f"    # {user.name}\n    {{ nkey: {user.nkey}, permissions: {{\n"
        f"      publish: {{ allow: [\n{_lines(user.publish)}\n      ] }}\n"
        f"      subscribe: {{ allow: [\n{_lines(user.subscribe)}\n      ] }}\n    }} }}\n"
    )


def _lines(subjects: Sequence[str]) -> str:
    return "\n".join(f"        {json.dumps(subject)}" for subject in subjects)


def _users(folder: Path, plan: ClusterPlan) -> list[User]:
    seeds = folder / "seeds"
    users = [operator_user(_key(folder / "operator" / "operator.seed").public)]
    users += [
        gateway_user(_key(seeds / f"gateway-{owner.hex()[:16]}.seed").public, owner)
        for owner in dict.fromkeys(plan.gateways)
    ]
    for worker in dict.fromkeys(plan.workers):
        key = _key(seeds / f"{worker.name}.seed")
        users.append(worker_user(key.public, worker.owner, groups_of(worker.model, worker.device)))
    return users


def _authority(folder: Path) -> Pair:
    certificate, secret = folder / "ca.pem", folder / "operator" / "ca.key"
    if not secret.exists():
        made = make_authority()
        _write_secret(secret, made.key_pem)
        certificate.write_bytes(made.pem)
    return Pair(pem=certificate.read_bytes(), key_pem=secret.read_bytes())


def _key(path: Path) -> Nkey:
    if path.exists():
        return Nkey.from_seed(path.read_text(encoding="ascii"))
    key = Nkey.generate()
    _write_secret(path, f"{key.seed}\n".encode())
    return key


def _write_secret(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
