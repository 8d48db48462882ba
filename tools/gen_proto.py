#!/usr/bin/env python3
"""Generate Python from proto/: messages for the SDK, gRPC stubs for the node, typed stubs for both.

`--check` writes nothing and fails when a committed file differs from what proto/ gives. The output depends only on
proto/ and on the pinned grpcio-tools.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
MESSAGES = ROOT / "sdk" / "plait" / "protocol" / "pb"
STUBS = ROOT / "node" / "plait_node" / "wire" / "generated"
PACKAGE = "plait.protocol.pb"


class GenerationError(Exception):
    """Say which input protoc refused, or which output is stale."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated files, or with --check compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a committed file is stale")
    options = parser.parse_args(arguments)
    try:
        outputs = generate()
        stale = sorted(stale_files(outputs))
        if options.check and stale:
            names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
            raise GenerationError(f"stale generated files: {names}; run `make gen` and commit them")
    except GenerationError as error:
        print(f"gen_proto: {error}", file=sys.stderr)
        return 1
    if not options.check:
        write(outputs, stale)
    print(f"gen_proto: {len(outputs)} files, {len(stale)} changed")
    return 0


def generate() -> dict[Path, str]:
    """Return every generated file's text, by where it belongs."""
    sources = sorted(PROTO.glob("*.proto"))
    if not sources:
        raise GenerationError("proto/ holds no *.proto file")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        run_protoc(scratch, sources)
        described = FileDescriptorSet.FromString((scratch / "set.bin").read_bytes())
        outputs = {MESSAGES / "__init__.py": marker("Messages"), STUBS / "__init__.py": marker("gRPC stubs")}
        for source in sources:
            for suffix in ("_pb2.py", "_pb2.pyi"):
                outputs[MESSAGES / (source.stem + suffix)] = clean((scratch / (source.stem + suffix)).read_text())
        for file in described.file:
            if file.service:
                stem = file.name.removesuffix(".proto")
                outputs[STUBS / f"{stem}_pb2_grpc.py"] = clean((scratch / f"{stem}_pb2_grpc.py").read_text())
                outputs[STUBS / f"{stem}_pb2_grpc.pyi"] = stub_types(stem, file.service)
    return outputs


def run_protoc(scratch: Path, sources: Sequence[Path]) -> None:
    well_known = files("grpc_tools") / "_proto"
    outputs = [f"--{kind}={scratch}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    described = [f"--descriptor_set_out={scratch / 'set.bin'}", f"-I{PROTO}", f"-I{well_known}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *described, *outputs, *map(str, sources)]
    if subprocess.run(command, check=False).returncode != 0:
        raise GenerationError("protoc refused proto/; its message is above")


def clean(text: str) -> str:
    """Make imports absolute and mappings fully typed, so that strict checking of our code stays possible."""
    text = re.sub(r"^import (\w+_pb2) as (\w+)$", rf"from {PACKAGE} import \1 as \2", text, flags=re.MULTILINE)
    text = re.sub(r"\b_Mapping(?=[\],])", "_Mapping[str, object]", text)
    return text.rstrip() + "\n"


def marker(what: str) -> str:
    return f'"""{what} generated from proto/ by `make gen`; edits here are overwritten."""\n'


def stub_types(stem: str, services: Sequence[ServiceDescriptorProto]) -> str:
    """Return type stubs of the asyncio face: protoc writes none for gRPC."""
    lines = [marker("Types of the asyncio stubs").rstrip(), "", "from collections.abc import AsyncIterator, Awaitable"]
    lines += ["from typing import Any", "", "import grpc", "import grpc.aio", f"from {PACKAGE} import {stem}_pb2", ""]
    for service in services:
        lines += [f"class {service.name}Stub:", "    def __init__(self, channel: grpc.aio.Channel) -> None: ..."]
        lines += [f"    {method.name}: {caller_type(stem, method)}" for method in service.method]
        lines += ["", f"class {service.name}Servicer:"]
        lines += [line for method in service.method for line in served(stem, method)]
        lines += ["", f"def add_{service.name}Servicer_to_server("]
        lines += [f"    servicer: {service.name}Servicer, server: grpc.aio.Server", ") -> None: ...", ""]
    return "\n".join(lines).rstrip() + "\n"


def types_of(stem: str, method: MethodDescriptorProto) -> tuple[str, str]:
    request, response = (name.rsplit(".", 1)[-1] for name in (method.input_type, method.output_type))
    return f"{stem}_pb2.{request}", f"{stem}_pb2.{response}"


def caller_type(stem: str, method: MethodDescriptorProto) -> str:
    asked = "Stream" if method.client_streaming else "Unary"
    answered = "Stream" if method.server_streaming else "Unary"
    return f"grpc.aio.{asked}{answered}MultiCallable[{', '.join(types_of(stem, method))}]"


def served(stem: str, method: MethodDescriptorProto) -> Iterator[str]:
    request, response = types_of(stem, method)
    asked = f"request_iterator: AsyncIterator[{request}]" if method.client_streaming else f"request: {request}"
    answer = f"AsyncIterator[{response}]" if method.server_streaming else f"Awaitable[{response}]"
    yield f"    def {method.name}("
    yield f"        self, {asked}, context: grpc.aio.ServicerContext[Any, Any]"
    yield f"    ) -> {answer}: ..."


def stale_files(outputs: Mapping[Path, str]) -> Iterator[Path]:
    """Yield files that are missing, differ, or are left over from a proto that is gone."""
    for path, text in outputs.items():
        if not path.is_file() or path.read_text() != text:
            yield path
    for folder in (MESSAGES, STUBS):
        yield from (path for path in folder.glob("*.py*") if path.is_file() and path not in outputs)


def write(outputs: Mapping[Path, str], stale: Sequence[Path]) -> None:
    for path in stale:
        if path in outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(outputs[path])
        else:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
