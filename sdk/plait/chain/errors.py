"""What can go wrong between plait and a chain.

ChainError
|- RpcError                   `.url` is the endpoint without path, query or password
|  |- RpcDownError            no answer in time, or none at all; ask again later
|  |- RpcRefusedError         the endpoint answered with an error; `.number` is its JSON-RPC code
|  `- RpcAnswerError          the endpoint answered with something that is no answer
|- DeploymentError            the deployment does not fit
|  |- DeploymentFileError     the file is missing or is no deployment
|  |- WrongChainError         the endpoint serves another chain than the deployment's
|  `- WrongCodeError          an address holds no code, or other code than was deployed
|- ContractError              a contract said no; `.error` is its name, `.values` what it carries
|  |- ChannelsError, NodeRegistryError, ModelRegistryError, RequestsError, ReputationError
|  `- TokenError
|- TransactionError
|  |- GasMoneyError           the key's account cannot pay the gas
|  |- PendingError            sent and not seen in a block in time: it may still land; `.hashes`
|  `- NonceTakenError         another transaction took the nonce of a journalled one; this one never lands
`- ReorgError                 blocks that were read are no longer part of the chain; `.block` is gone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, to_hex


class ChainError(PlaitError):
    """Something between plait and a chain failed."""

    code = "chain"


class RpcError(ChainError):
    """A JSON-RPC endpoint did not do what was asked."""

    code = "rpc"

    def __init__(self, url: str, text: str) -> None:
        super().__init__(text)
        self.url = url


class RpcDownError(RpcError):
    """The endpoint did not answer in time, or not at all."""

    code = "rpc_down"
    retry = True

    def __init__(self, url: str, *, method: str, why: str) -> None:
        super().__init__(
            url,
            f"no answer to {method} from {url} ({why}); check that the node runs and that the URL is right, then retry",
        )


class RpcRefusedError(RpcError):
    """The endpoint answered with an error; `number` is its JSON-RPC code."""

    code = "rpc_refused"

    def __init__(self, url: str, *, method: str, number: int, message: str, data: bytes = b"") -> None:
        super().__init__(url, f"{url} refused {method}: {message} (code {number})")
        self.number = number
        self.message = message
        self.data = data


class RpcAnswerError(RpcError):
    """The endpoint answered with something that is no answer."""

    code = "rpc_answer"

    def __init__(self, url: str, *, method: str, why: str) -> None:
        super().__init__(url, f"{url} answered {method} with something else ({why}); is this an Ethereum JSON-RPC URL?")


class DeploymentError(ChainError):
    """The deployment does not fit."""

    code = "deployment"


class DeploymentFileError(DeploymentError):
    """The file is missing or is no deployment."""

    code = "deployment_file"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is no deployment file: {why}; give the file that the deployment wrote")
        self.path = path


class WrongChainError(DeploymentError):
    """The endpoint serves another chain than the deployment's."""

    code = "wrong_chain"

    def __init__(self, url: str, *, expected: int, found: int) -> None:
        super().__init__(
            f"{url} serves chain {found}, the deployment is on chain {expected}; "
            f"use an endpoint of chain {expected} or the deployment file of chain {found}"
        )
        self.expected = expected
        self.found = found


class WrongCodeError(DeploymentError):
    """An address holds no code, or other code than was deployed."""

    code = "wrong_code"

    def __init__(self, contract: str, at: Address, *, empty: bool) -> None:
        what = "no contract" if empty else "other code than was deployed"
        super().__init__(
            f"{to_hex(at)} holds {what} where {contract} should be; "
            "the deployment file is of another network, or the local chain was restarted: deploy again"
        )
        self.contract = contract
        self.address = at


class ContractError(ChainError):
    """A contract said no; `error` is its name, `values` what it carries."""

    code = "contract"

    def __init__(self, error: str, values: Mapping[str, object], advice: str = "") -> None:
        shown = ", ".join(f"{name}={_shown(value)}" for name, value in values.items())
        super().__init__(f"{error}({shown})" + (f": {advice}" if advice else ""))
        self.error = error
        self.values = dict(values)


class ChannelsError(ContractError):
    """`Channels` said no."""

    code = "contract_channels"


class NodeRegistryError(ContractError):
    """`NodeRegistry` said no."""

    code = "contract_node_registry"


class ModelRegistryError(ContractError):
    """`ModelRegistry` said no."""

    code = "contract_model_registry"


class RequestsError(ContractError):
    """`Requests` said no."""

    code = "contract_requests"


class ReputationError(ContractError):
    """`Reputation` said no."""

    code = "contract_reputation"


class TokenError(ContractError):
    """The token said no."""

    code = "contract_token"


class TransactionError(ChainError):
    """A transaction did not make it into a block."""

    code = "transaction"


class GasMoneyError(TransactionError):
    """The account cannot pay the gas."""

    code = "gas_money"

    def __init__(self, account: Address, message: str) -> None:
        super().__init__(f"{to_hex(account)} cannot pay for gas ({message}); send it the chain's own coin, then retry")
        self.account = account


class PendingError(TransactionError):
    """No block took the transaction in time; it may still land. `hashes` are its variants, the last one last."""

    code = "pending"

    def __init__(self, hashes: Sequence[Hash], *, waited_s: float) -> None:
        super().__init__(
            f"transaction {to_hex(hashes[-1])} is in no block after {waited_s:.0f} s; "
            "it may still land: look it up before sending it again"
        )
        self.hashes = tuple(hashes)


class NonceTakenError(TransactionError):
    """Another transaction took the nonce of a journalled one, which therefore never lands."""

    code = "nonce_taken"

    def __init__(self, nonce: int, account: Address) -> None:
        super().__init__(
            f"nonce {nonce} of {to_hex(account)} was used by another transaction; "
            "check what it should have done before sending it again"
        )
        self.nonce = nonce


class ReorgError(ChainError):
    """A block that was read is no longer part of the chain."""

    code = "reorg"
    retry = True

    def __init__(self, block: int, *, expected: Hash, found: Hash | None) -> None:
        super().__init__(
            f"block {block} was {to_hex(expected)} and is now {to_hex(found) if found else 'missing'}; "
            "unwind to an older checkpoint and read again"
        )
        self.block = block


def _shown(value: object) -> str:
    return to_hex(value) if isinstance(value, bytes) else str(value)
