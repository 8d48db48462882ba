// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @notice A payment channel: keccak256(abi.encode(payer, payee, signer)).
type ChannelId is bytes32;

/// @notice A model: the hash of its manifest's canonical JSON.
type ModelId is bytes32;
