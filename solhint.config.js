"use strict";
// `make lint` holds contracts/ to these rules and takes a warning for an error. solhint looks for this file only when
// told: --config solhint.config.js.

module.exports = {
  extends: "solhint:recommended",
  rules: {
    "code-complexity": ["error", 9],
    "compiler-version": ["error", "^0.8.27"],
    "func-visibility": ["warn", { ignoreConstructors: true }],
    "function-max-lines": ["warn", 60],
    "gas-custom-errors": "error",
    "no-unused-private-funcs": "warn",
    "private-vars-leading-underscore": ["warn", { strict: false }],
    "use-natspec": ["error", { author: { enabled: false } }],

    // Off, for a reason each.
    "gas-indexed-events": "off", // ids and parties are indexed, amounts are not: nobody looks for an amount
    "gas-small-strings": "off", // the long strings are EIP-712 types, hashed by the compiler
    "gas-strict-inequalities": "off", // a bound is written as docs/protocol.md has it; the optimiser makes both the same
    "no-complex-fallback": "off", // the one fallback is a mock's: it measures calldata that has no selector
    "no-empty-blocks": "off", // `try permit {} catch {}`: a permit that somebody used first is no failure
    "no-inline-assembly": "off", // belongs in libraries/, memory-safe, fuzzed against a plain version
  },
};
