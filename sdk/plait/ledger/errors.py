"""What can go wrong where money is kept.

LedgerError
|- JournalError                  the file itself
|  |- ForeignJournalError        it belongs to another deployment
|  |- NewerJournalError          a newer version of plait wrote it
|  `- JournalFullError           nothing can be written now; what was written before stays
|- PaymentError                  a payment, or the wish to make one, that does not fit; nothing changed
|  |- WrongPartyError            not for us, or signed by somebody else
|  |- UnknownChannelError        the chain knows no such channel
|  |- StaleVoucherError          not the next voucher of this channel; `.expected` and `.offered` in base units
|  |- DepositTooSmallError       more than the channel holds
|  |- ExitingError               the payer is leaving
|  |- ClosedError                we consented to close the channel
|  |- ClaimedAheadError          the chain paid more than this journal knows of
|  |- LowerAmountError           less for a request than was paid before
|  |- EndedError                 the request ended on this channel
|  |- LeafError                  an ended job that is not as it was
|  `- ReceiptsError              root, count or proof that do not follow from the ended jobs
|- RecoveryError                 what payer and payee hold cannot be brought together
|- ConflictError                 a second, different signature for the same thing
`- KeyFileError                  a key file that is missing, open to others, or unreadable
"""

from __future__ import annotations

from pathlib import Path

from plait.protocol.errors import PlaitError
from plait.protocol.ids import Hash, to_hex


class LedgerError(PlaitError):
    """Something where money is kept failed."""

    code = "ledger"


class JournalError(LedgerError):
    """The journal's file cannot be used."""

    code = "journal"


class ForeignJournalError(JournalError):
    """The journal belongs to another deployment."""

    code = "journal_foreign"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was written for another deployment, or for this chain before it was restarted; "
            "name the journal of this deployment, or a new file"
        )
        self.path = path


class NewerJournalError(JournalError):
    """A newer version of plait wrote the journal."""

    code = "journal_newer"

    def __init__(self, path: Path, *, found: int, known: int) -> None:
        super().__init__(f"{path} has format {found}, this version reads up to {known}; upgrade plait")
        self.path = path


class JournalFullError(JournalError):
    """The journal cannot be written, most likely because its disk is full; nothing changed, try again later."""

    code = "journal_full"
    retry = True


class PaymentError(LedgerError):
    """A payment, or the wish to make one, does not fit; nothing changed."""

    code = "bad_request"


class WrongPartyError(PaymentError):
    """The payment is not for us, or not signed by one key."""

    code = "bad_request"


class UnknownChannelError(PaymentError):
    """The chain knows no such channel."""

    code = "channel_unknown"

    def __init__(self, channel: Hash) -> None:
        super().__init__(f"channel {to_hex(channel)} holds no money; open it with this signer first")
        self.channel = channel


class StaleVoucherError(PaymentError):
    """The voucher is not the next one of its channel; amounts in base units."""

    code = "stale_voucher"

    def __init__(self, *, expected: int, offered: int) -> None:
        super().__init__(
            f"the next voucher of this channel is for {expected}, not {offered} base units in all; "
            "ask for the channel's state and send what is missing, in order"
        )
        self.expected = expected
        self.offered = offered


class DepositTooSmallError(PaymentError):
    """More than the channel holds; amounts in base units."""

    code = "deposit_too_small"

    def __init__(self, *, deposit: int, needed: int) -> None:
        super().__init__(f"the channel holds {deposit} base units and {needed} are needed in all; top it up")
        self.deposit = deposit
        self.needed = needed


class ExitingError(PaymentError):
    """The payer is leaving; `exit_at` in Unix seconds."""

    code = "channel_exiting"

    def __init__(self, exit_at: int) -> None:
        super().__init__(f"the payer is leaving this channel (it may withdraw from {exit_at} on); open another one")
        self.exit_at = exit_at


class ClosedError(PaymentError):
    """The payee consented to close the channel."""

    code = "channel_exiting"

    def __init__(self) -> None:
        super().__init__("this channel is being closed; top it up after that, or open another one")


class ClaimedAheadError(PaymentError):
    """The chain paid more than this journal knows of; amounts in base units."""

    code = "internal"

    def __init__(self, *, claimed: int, journalled: int) -> None:
        super().__init__(
            f"the chain paid {claimed} base units of this channel, the journal knows of {journalled}; "
            "restore the newest journal, or have the payer open a channel with a fresh signer"
        )
        self.claimed = claimed
        self.journalled = journalled


class LowerAmountError(PaymentError):
    """Less for a request than was paid before; amounts in base units."""

    code = "stale_voucher"

    def __init__(self, request: Hash, *, paid: int, offered: int) -> None:
        super().__init__(f"{paid} base units were paid for {to_hex(request)}, {offered} is less; totals only grow")
        self.request = request
        self.paid = paid
        self.offered = offered


class EndedError(PaymentError):
    """The request ended on this channel."""

    code = "stale_voucher"

    def __init__(self, request: Hash) -> None:
        super().__init__(f"request {to_hex(request)} ended on this channel; nothing more is paid for it")
        self.request = request


class LeafError(PaymentError):
    """An ended job is not as it was."""

    code = "bad_request"


class ReceiptsError(PaymentError):
    """Root, count or proof do not follow from the ended jobs."""

    code = "stale_voucher"


class RecoveryError(LedgerError):
    """What payer and payee hold cannot be brought together."""

    code = "recovery"


class ConflictError(LedgerError):
    """A second, different signature for the same thing was asked for."""

    code = "conflict"

    def __init__(self, kind: str, *, signed: Hash, asked: Hash) -> None:
        super().__init__(
            f"a {kind} for the same place was signed already ({to_hex(signed)}), {to_hex(asked)} contradicts it; "
            "two programs use this key, or an old journal was restored: stop one of them"
        )
        self.kind = kind
        self.signed = signed
        self.asked = asked


class KeyFileError(LedgerError):
    """A key file is missing, open to others, or unreadable."""

    code = "key_file"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
