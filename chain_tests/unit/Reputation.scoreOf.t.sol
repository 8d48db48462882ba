// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ReputationScoreOfTest is Fixture {
    function setUp() public override {
        super.setUp();
        open(1e15);
        join(payee, NODE_KEY, MIN_STAKE);
    }

    function test_IsTheFee() public {
        vm.assertEq(reputation.scoreOf(payee), 0, "nothing earned");
        claim(10e6);
        vm.assertEq(reputation.scoreOf(payee), 100_000, "one percent");
        vm.assertEq(reputation.scoreOf(stranger), 0, "somebody else");
    }

    function test_StaysWhenTheFeeIsBurned() public {
        claim(10e6);
        channels.burn(payee);

        vm.assertEq(reputation.scoreOf(payee), 100_000, "score");
    }

    function test_CountsTheShareThatWasNotForfeited() public {
        claim(10e6);
        nextEpoch();
        nextEpoch();
        channels.release(payee);
        claim(40e6);
        _forfeit();

        vm.assertEq(reputation.scoreOf(payee), 100_000, "what was released counts");
    }

    function test_IsZeroWhenAllWasForfeited() public {
        claim(10e6);
        _forfeit();

        vm.assertEq(reputation.scoreOf(payee), 0, "nothing counts");
    }

    function test_HalvesPerVerdict() public {
        claim(10e6);
        _slash(1);
        vm.assertEq(reputation.scoreOf(payee), 50_000, "one verdict");
        _slash(1);
        vm.assertEq(reputation.scoreOf(payee), 25_000, "two verdicts");
        claim(20e6);
        vm.assertEq(reputation.scoreOf(payee), 50_000, "later work counts a quarter too");
    }

    function test_IsZeroAfterManyVerdicts() public {
        claim(1e15);
        for (uint256 i = 0; i < 300; ++i) {
            _slash(1);
        }

        vm.assertEq(reputation.scoreOf(payee), 0, "a shift by more than the word is no score");
    }

    function testFuzz_IsNeverMoreThanTheFee(uint96[2] memory totals, bool forfeits, uint8 verdicts)
        public
    {
        // So much that something is left of each part after its fee.
        uint96 first = uint96(bound(totals[0], 101, 1e15 - 101));
        uint96 second = uint96(bound(totals[1], first + 101, 1e15));
        verdicts = verdicts % 4;
        claim(first);
        nextEpoch();
        nextEpoch();
        channels.release(payee);
        claim(second);
        if (forfeits) _forfeit();
        for (uint256 i = 0; i < verdicts; ++i) {
            _slash(1);
        }

        IChannels.Account memory account = channels.accountOf(payee);
        uint256 net = account.earned - account.fee;
        uint256 expected = uint256(account.fee) * (net - account.forfeited) / net >> verdicts;
        vm.assertEq(reputation.scoreOf(payee), expected, "score");
        vm.assertLe(reputation.scoreOf(payee), account.fee, "no more than the fee");
    }

    function _forfeit() private {
        vm.prank(arbiter);
        channels.forfeit(payee);
    }

    function _slash(uint96 amount) private {
        vm.prank(arbiter);
        nodes.slash(payee, amount);
    }
}
