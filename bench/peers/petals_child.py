"""A Petals server, or a client of Petals servers; runs in .petals-venv, which tools/petals_env.sh makes.

    petals_child.py server ARGUMENTS...              what `petals.cli.run_server` takes
    petals_child.py client FOLDER PREFIX SECONDS PEER...
                                                     prints one JSON line when ready, then answers requests, one a line;
                                                     a server that says nothing for SECONDS is given up
    petals_child.py check                            ends with 0 where Petals can be imported

Petals 2.2.0.post1 was written for hivemind 1.1.10, which cannot be built any more. With hivemind 1.1.12 it needs names
where they no longer are; `mend` puts them back before anything of Petals is imported. No behaviour is changed, but for
the server's look at the newest version on the internet, which is left out. Both end, with all processes that they made,
when their input ends.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any, Final, Protocol

# What Petals takes from the top of hivemind, and where hivemind 1.1.12 has it.
_MOVED: Final = {
    "hivemind.compression": ("deserialize_tensor_stream", "deserialize_torch_tensor", "serialize_torch_tensor"),
    "hivemind.p2p": ("P2P", "P2PContext", "PeerID"),
    "hivemind.utils.asyncio": ("anext",),
    "hivemind.utils.logging": ("get_logger",),
    "hivemind.utils.nested": ("nested_compare", "nested_flatten", "nested_pack"),
    "hivemind.utils.serializer": ("MSGPackSerializer",),
    "hivemind.utils.tensor_descr": ("BatchTensorDescriptor", "TensorDescriptor"),
    "hivemind.utils.timed_storage": ("MAX_DHT_TIME_DISCREPANCY_SECONDS", "TimedStorage", "get_dht_time"),
}


def mend() -> None:
    """Give hivemind the names that Petals expects of it; raise `AttributeError` where one is gone."""
    hivemind = importlib.import_module("hivemind")
    for module, names in _MOVED.items():
        found = importlib.import_module(module)
        for name in names:
            setattr(hivemind, name, getattr(found, name))


def serve(arguments: list[str]) -> None:
    """Be a server until the process is ended."""
    run_server = importlib.import_module("petals.cli.run_server")
    vars(run_server)["validate_version"] = lambda: None
    sys.argv = ["run_server", *arguments]
    run_server.main()


class _Ids(Protocol):
    def tolist(self) -> list[int]: ...


class Streamer:
    """Says each new id as it comes, and when; transformers calls it."""

    def __init__(self, began: float) -> None:
        self.ids: list[int] = []
        self.at: list[float] = []
        self._began = began
        self._prompt = True

    def put(self, ids: _Ids) -> None:
        """Take what is new: first the prompt, then an id at a time."""
        if self._prompt:
            self._prompt = False
            return
        for id_ in ids.tolist():
            self.ids.append(id_)
            self.at.append(time.perf_counter() - self._began)
            say({"token": id_})

    def end(self) -> None:
        """Do nothing: the answer follows."""


def ask(folder: str, prefix: str, timeout_s: float, peers: list[str]) -> None:
    """Answer each line `{"prompt": ids, "count": n}` with greedy ids, `at` seconds after the request came."""
    torch = importlib.import_module("torch")
    petals = importlib.import_module("petals")
    torch.set_num_threads(1)
    model = petals.AutoDistributedModelForCausalLM.from_pretrained(
        folder, initial_peers=peers, dht_prefix=prefix, request_timeout=timeout_s, torch_dtype=torch.float32
    )
    say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        streamer = Streamer(time.perf_counter())
        options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        try:
            with torch.inference_mode():
                model.generate(
                    torch.tensor([asked["prompt"]]), max_new_tokens=asked["count"], streamer=streamer, **options
                )
        except Exception as error:  # noqa: BLE001  what Petals raises is what is reported
            say({"error": f"{type(error).__name__}: {error}"[:300], "ids": streamer.ids, "at": streamer.at})
            continue
        say({"ids": streamer.ids, "at": streamer.at})


def say(value: dict[str, Any]) -> None:
    """Print a JSON line; the lines of hivemind's own log go to the other output."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _end_with_input() -> None:
    """Wait for the end of the input; without Python's lock on it, which processes that are forked would inherit."""
    while os.read(0, 1):
        pass
    _end_group()


def _end_group() -> None:
    """End this process and all that it made, where it was started as a group of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    """Be what the first argument says."""
    mend()
    match sys.argv[1:]:
        case ["server", *arguments]:
            threading.Thread(target=_end_with_input, daemon=True).start()
            serve(arguments)
        case ["client", folder, prefix, seconds, *peers]:
            ask(folder, prefix, float(seconds), peers)
            _end_group()
        case ["check"]:
            importlib.import_module("petals.cli.run_server")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
