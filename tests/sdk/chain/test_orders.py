"""Parameters of on-chain requests, and what the contracts say when they refuse."""

from __future__ import annotations

import pytest
from tests.sdk.protocol.vectors import load, raw

from plait.chain import ModelRegistryError, NodeRegistryError, Order, RequestParameters, RequestsError, TokenError
from plait.chain.abi import all_errors, artifact
from plait.chain.reverts import ADVICE, contract_error
from plait.protocol.ids import HASH_ZERO, Address, Hash


def parameters(which: str) -> tuple[RequestParameters, bytes]:
    vectors = load("requests")
    case = vectors if which == "public" else vectors["commitment"]
    values = {
        name: raw(value) if isinstance(value, str) and value.startswith("0x") else int(value)
        for name, value in case["params"].items()
    }
    return RequestParameters.from_event(values), raw(case["paramsHash"])


@pytest.mark.parametrize("which", ["public", "commitment"])
def test_request_parameters_hash_as_the_vectors(which: str) -> None:
    found, expected = parameters(which)

    assert found.hash() == expected
    assert found.sampling.stop == HASH_ZERO
    assert (found.sampling.temperature, found.sampling.top_p, found.sampling.top_k) == (
        found.temperature,
        found.top_p,
        found.top_k,
    )


def test_order_and_parameters_have_the_contract_s_fields_in_its_order() -> None:
    functions = artifact("Requests").functions
    for kind, function, argument in ((Order, "request", 0), (RequestParameters, "fulfil", 1)):
        ours = [name.replace("_", "") for name in kind.__dataclass_fields__]
        assert ours == [part.name.lower() for part in functions[function].inputs[argument].parts]


def test_order_without_sampling_is_greedy_and_without_callback() -> None:
    order = Order(
        gateway=Address(bytes(20)),
        model=Hash(bytes(32)),
        profile=Hash(bytes(32)),
        max_tokens=1,
        fee=1,
        exclusive_until=60,
        deadline=60,
    )

    assert (order.temperature, order.top_p, order.top_k, order.callback_gas) == (0, 1_000_000, 0, 0)


def test_advice_is_for_errors_that_contracts_have() -> None:
    assert set(ADVICE) <= {error.name for error in all_errors().values()}


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        ("Requests_BadTimes", RequestsError, "a minute or more"),
        ("Requests_StillExclusive", RequestsError, "cancel after exclusiveUntil"),
        ("Requests_CallerNotPayer", RequestsError, "from the account that made the request"),
        ("NodeRegistry_JailTooLong", NodeRegistryError, "at most the unbonding delay"),
        ("Intake_WrongAmount", TokenError, "takes a fee on transfer"),
        ("ERC3009UsedAuthorization", TokenError, ""),
        ("ModelNotFound", ModelRegistryError, ""),
    ],
)
def test_error_of_a_contract_has_its_class_and_says_what_to_do(error: str, kind: type[Exception], advice: str) -> None:
    known = next(each for each in all_errors().values() if each.name == error)

    found = contract_error(known.selector + bytes(32 * len(known.inputs)))

    assert type(found) is kind
    assert found.error == error
    assert advice in found.text
