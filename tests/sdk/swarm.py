"""A swarm in one process for tests of the SDK: real keys, real messages, no model, no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from plait.protocol.checks import closes_at
from plait.protocol.choice import ChoiceNote
from plait.protocol.commitments import RunningHash, id_bytes, prompt_commitment, stop_commitment
from plait.protocol.ids import HASH_ZERO, Address, Hash, group_id, keccak
from plait.protocol.manifest import FP32_STRICT, Manifest
from plait.protocol.messages import (
    Finish,
    Job,
    Leaf,
    Prekey,
    Progress,
    Quote,
    Receipt,
    Request,
    Sampling,
    Stage,
    Terms,
    Worker,
)
from plait.protocol.money import job_price
from plait.protocol.sealing import AnswerSealer, ContentKey, PrekeySecret
from plait.protocol.tokens import ChatTokenizer
from plait.protocol.typed import Domain, Key, Signed, digest, random_hash, struct_hash
from plait.protocol.verify import AnswerVerifier
from plait.protocol.windows import Cut, Window, leaves_root, progress_to, row_hash, salted_root, window_root

NOW = 1_800_000_000
DOMAIN = Domain(chain_id=31337, channels=Address(b"\xc0" * 20))
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
START, END = 256, 257


@cache
def tokenizer_json() -> bytes:
    """One token a byte, and two special ones: enough to render, count, and cut letters of two bytes apart."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    return made.to_str().encode()


def manifest() -> Manifest:
    return Manifest(
        name="tiny",
        architecture="llama",
        config={"hidden_size": 8},
        blocks=30,
        hidden=8,
        vocabulary=258,
        context=2_048,
        tokenizer=keccak(tokenizer_json()),
        chat_template=keccak(TEMPLATE.encode()),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        end_tokens=(END,),
        weights=keccak(b"weights"),
        licence="Apache-2.0",
        profiles=(FP32_STRICT,),
    )


def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.of(manifest(), tokenizer_json=tokenizer_json(), chat_template=TEMPLATE.encode())


@dataclass(slots=True, kw_only=True)
class KnownKey:
    owner: Address
    valid_from: int = 0
    revoked_at: int = 0


@dataclass(slots=True, kw_only=True)
class Directory:
    """A NodeDirectory in memory."""

    keys: dict[Address, KnownKey] = field(default_factory=dict)
    jailed: set[Address] = field(default_factory=set)
    down: bool = False

    async def service_key(self, key: Address) -> KnownKey | None:
        if self.down:
            raise TimeoutError
        return self.keys.get(key)

    async def active(self, owner: Address) -> bool:
        return owner not in self.jailed and any(known.owner == owner for known in self.keys.values())


@dataclass(slots=True, kw_only=True)
class Node:
    owner: Address
    service: Key


@dataclass(slots=True, kw_only=True)
class Event:
    """One event of an answer; `body` is a signed message, (progress, leaves) or (job, sealed chunk)."""

    kind: str
    body: object


class Swarm:
    """A gateway, a worker and three stages that answer as they are told."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.gateway = self.node()
        self.worker = self.node()
        self.stages = [self.node() for _ in range(3)]
        self.prekey_secret = PrekeySecret.generate()
        self.manifest = manifest()
        self.terms = Terms(profile=FP32_STRICT.profile_id, input_price=2_000_000, output_price=8_000_000)

    def node(self) -> Node:
        made = Node(owner=Key.generate().address, service=Key.generate())
        self.directory.keys[made.service.address] = KnownKey(owner=made.owner)
        return made

    def prekey(self, now: int = NOW) -> Signed[Prekey]:
        key = Prekey(
            node=self.worker.owner,
            kem=self.prekey_secret.kem,
            key=self.prekey_secret.public,
            valid_from=now - 10,
            expires=now + 3_600,
        )
        return self.worker.service.signed(DOMAIN, key)

    def quote(self, prekey: Signed[Prekey], now: int = NOW, **changes: object) -> Signed[Quote]:
        quote = Quote(
            gateway=self.gateway.owner,
            model=self.manifest.model_id,
            group=group_id(self.manifest.model_id, "cpu", 0, 0),
            terms=(self.terms,),
            workers=(Worker(node=self.worker.owner, prekey=prekey.struct_hash(), share=1_000_000),),
            max_input=1_024,
            max_output=512,
            expires=now + 600,
        )
        return self.gateway.service.signed(DOMAIN, replace(quote, **changes))

    def request(
        self, quote: Quote, key: ContentKey, ids: Sequence[int], *, stop: Sequence[str] = (), max_tokens: int = 40
    ) -> Request:
        return Request(
            payer=Address(b"\x11" * 20),
            gateway=self.gateway.owner,
            quote=struct_hash(quote),
            model=quote.model,
            profiles=(self.terms.profile,),
            prompt=prompt_commitment(key, ids),
            sampling=Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=stop_commitment(key, stop)),
            input_tokens=len(ids),
            max_tokens=max_tokens,
            max_price=job_price(self.terms, input_tokens=len(ids), output_tokens=max_tokens),
            seed=random_hash(),
            nonce=random_hash(),
            deadline=NOW + 600,
        )

    def answer(self, request: Request, key: ContentKey, prompt: Sequence[int]) -> Answer:
        return Answer(self, request, key, list(prompt))


class Answer:
    """The worker's side of one request: makes jobs, chunks, leaves, progress and the receipt."""

    def __init__(self, swarm: Swarm, request: Request, key: ContentKey, prompt: list[int]) -> None:
        self.swarm, self.request, self.key, self.prompt = swarm, request, key, prompt
        self.digest = digest(DOMAIN, request)
        self.ids: list[int] = []
        self.hashes = [RunningHash(key, self.digest).value]
        self.segments: list[Hash] = []
        self.paid = 0
        self.attempt = 0
        self.choice = ChoiceNote(method="plain", amounts={}, predicted={"ttft_s": 0.5}, reason="nothing is shared")

    def job(self, stages: Sequence[Node] | None = None, **changes: object) -> Signed[Job]:
        nodes = self.swarm.stages if stages is None else stages
        self.attempt += 1
        blocks = self.swarm.manifest.blocks // len(nodes)
        route = tuple(
            Stage(node=node.owner, first=at * blocks, last=(at + 1) * blocks, price=60_000)
            for at, node in enumerate(nodes)
        )
        job = Job(
            request=self.digest,
            attempt=self.attempt,
            worker=self.swarm.worker.owner,
            route=route,
            profile=self.request.profiles[0],
            choice=self.choice.choice,
            start=len(self.ids),
            row=0,
            tokens=self.hashes[-1],
            closes_at=closes_at(self.request),
        )
        self.signed_job = self.swarm.worker.service.signed(DOMAIN, replace(job, **changes))
        self.nodes = list(nodes)
        self.sealer = AnswerSealer(self.key, request=self.digest, job=self.job_hash)
        self.cut = Cut(prompt_end=len(self.prompt) + len(self.ids))
        self.leaves: list[Signed[Leaf]] = []
        self.window, self.end = 0, 0
        self.last_progress: Signed[Progress] | None = None
        return self.signed_job

    @property
    def job_hash(self) -> Hash:
        return self.signed_job.struct_hash()

    def chunk(self, ids: Sequence[int]) -> bytes:
        for token in ids:
            self.ids.append(token)
            self.hashes.append(RunningHash(self.key, self.digest, self.hashes[-1]).extend((token,)))
        return self.sealer.seal(ids)

    def progress(self, end: int) -> tuple[Signed[Progress], list[Signed[Leaf]]]:
        """Sign all windows up to step `end`, which may close the last one early."""
        fresh: list[Signed[Leaf]] = []
        while self.end < end:
            stop = min(self.cut.close_at(self.end), end)
            fresh += self.window_leaves(Window(index=self.window, start=self.end, count=stop - self.end))
            self.window, self.end = self.window + 1, stop
        job = self.signed_job.message
        to = progress_to(
            prompt_end=self.cut.prompt_end, input_tokens=len(self.prompt), start=job.start, window_end=self.end
        )
        progress = Progress(job=self.job_hash, to=to, tokens=self.hashes[to], leaves=leaves_root(DOMAIN, self.leaves))
        self.last_progress = self.swarm.worker.service.signed(DOMAIN, progress)
        return self.last_progress, fresh

    def window_leaves(self, window: Window) -> list[Signed[Leaf]]:
        ids = [*self.prompt, *self.ids]
        salt = self.key.salt("rows")
        found: list[Signed[Leaf]] = []
        for stage, node in enumerate(self.nodes):
            before = [leaf for leaf in self.leaves if leaf.message.stage == stage][-1:]
            [sha256(bytes([stage]) + id_bytes(token)).digest() for token in ids]
            leaf = Leaf(
                job=self.job_hash,
                stage=stage,
                window=window.index,
                start=window.start,
                count=window.count,
                in_root=found[-1].message.out_root if found else self.root(salt, window, 0, [id_bytes(i) for i in ids]),
                out_root=self.root(
                    salt, window, stage + 1, [sha256(bytes([stage]) + id_bytes(i)).digest() for i in ids]
                ),
                up_leaf=found[-1].digest(DOMAIN) if found else HASH_ZERO,
                prev_leaf=before[0].digest(DOMAIN) if before else HASH_ZERO,
                print=HASH_ZERO,
            )
            found.append(node.service.signed(DOMAIN, leaf))
        self.leaves += found
        return found

    def root(self, salt: bytes, window: Window, boundary: int, rows: Sequence[bytes]) -> Hash:
        root = window_root(row_hash(step, rows[step]) for step in range(window.start, window.end))
        return salted_root(salt, boundary=boundary, window=window.index, root=root)

    def note(self) -> bytes:
        return self.sealer.seal_note(self.choice.to_json())

    def segment(self) -> None:
        """Count the current Job's last Progress into the receipt."""
        if self.last_progress is not None:
            self.segments.append(self.last_progress.struct_hash())
            self.paid += self.last_progress.message.to - self.signed_job.message.start

    def receipt(self, finish: int, **changes: object) -> Signed[Receipt]:
        to = self.last_progress.message.to if self.last_progress else 0
        terms = self.swarm.terms
        price = job_price(terms, input_tokens=len(self.prompt), output_tokens=self.paid) if self.segments else 0
        receipt = Receipt(
            request=self.digest,
            segments=tuple(self.segments),
            input_tokens=len(self.prompt),
            output_tokens=to,
            tokens=self.hashes[to],
            price=price,
            finish=finish,
            finished_at=NOW + 5,
            closes_at=closes_at(self.request),
        )
        return self.swarm.worker.service.signed(DOMAIN, replace(receipt, **changes))

    def events(self, output: Sequence[int], finish: int = Finish.STOP, *, chunk: int = 5) -> Iterator[Event]:
        """Yield a whole undisturbed answer."""
        yield Event(kind="job", body=self.job())
        count = len(self.prompt)
        for at in range(0, len(output), chunk):
            yield Event(kind="chunk", body=(self.job_hash, self.chunk(output[at : at + chunk])))
            full = self.end
            while self.cut.close_at(full) <= count + len(self.ids) - 1:
                full = self.cut.close_at(full)
            if full > self.end:
                yield Event(kind="progress", body=self.progress(full))
        if count + len(self.ids) - 1 > self.end:
            yield Event(kind="progress", body=self.progress(count + len(self.ids) - 1))
        self.segment()
        yield Event(kind="chunk", body=(self.job_hash, self.note()))
        yield Event(kind="receipt", body=self.receipt(finish))


async def feed(verifier: AnswerVerifier, event: Event) -> None:
    """Hand an event to the verifier's method for it."""
    body: object = event.body
    match event.kind:
        case "job":
            await verifier.accept_job(body)
        case "chunk":
            verifier.accept_chunk(*body)
        case "progress":
            await verifier.accept_progress(*body)
        case _:
            await verifier.accept_receipt(body)
