"use strict";
// The command line of native solc, as far as forge, brownie and py-solc-x use it: --version and --standard-json.
// What npm's own `solcjs` lacks: the native version text, comma-joined paths, and the rule that an import may only
// be read from below the base path, an include path or an allowed path.

const fs = require("node:fs");
const path = require("node:path");

const USAGE = "usage: solc --version | solc --standard-json [FILE] [--base-path DIR] [--include-path DIR]... [--allow-paths DIR,...]";

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

function parse(argv) {
  const options = { mode: null, input: null, basePath: "", includePaths: [], allowPaths: [] };
  for (let i = 0; i < argv.length; i += 1) {
    const [flag, inline] = splitFlag(argv[i]);
    const value = () => inline ?? argv[(i += 1)] ?? fail(`the required argument for option '${flag}' is missing`);
    if (flag === "--version" || flag === "--standard-json" || flag === "--help") options.mode = flag;
    else if (flag === "--base-path") options.basePath = value();
    else if (flag === "--include-path" || flag === "-I") options.includePaths.push(value());
    else if (flag === "--allow-paths") options.allowPaths.push(...value().split(",").filter(Boolean));
    else if (flag === "--pretty-json") continue;
    else if (flag.startsWith("-") && flag !== "-") fail(`unrecognised option '${flag}'`);
    else if (flag !== "-") options.input = flag;
  }
  return options;
}

function splitFlag(argument) {
  const at = argument.startsWith("--") ? argument.indexOf("=") : -1;
  return at < 0 ? [argument, undefined] : [argument.slice(0, at), argument.slice(at + 1)];
}

function realOrNull(file) {
  try {
    return fs.realpathSync(file);
  } catch {
    return null;
  }
}

function isBelow(directory, file) {
  const relative = path.relative(directory, file);
  return relative === "" || (!relative.startsWith(`..${path.sep}`) && relative !== ".." && !path.isAbsolute(relative));
}

// A source unit may be named by a relative path, an absolute path or a file:// URL.
function reader(options) {
  const roots = [options.basePath || process.cwd(), ...options.includePaths];
  const allowed = [...roots, ...options.allowPaths].map(realOrNull).filter(Boolean);
  return (unit) => {
    const name = unit.startsWith("file://") ? unit.slice("file://".length) : unit;
    const candidates = path.isAbsolute(name) ? [name] : roots.map((root) => path.join(root, name));
    const found = [...new Set(candidates.map(realOrNull).filter(Boolean))];
    if (found.length === 0) return { error: `File not found. Searched the following locations: ${candidates.join(", ")}.` };
    if (found.length > 1) return { error: `Ambiguous import. Multiple matching files found: ${found.join(", ")}.` };
    if (!allowed.some((directory) => isBelow(directory, found[0]))) return { error: "File outside of allowed directories." };
    if (!fs.statSync(found[0]).isFile()) return { error: "Not a valid file." };
    return { contents: fs.readFileSync(found[0], "utf8") };
  };
}

async function readInput(file) {
  if (file) return fs.readFileSync(file, "utf8");
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

function loadCompiler() {
  // Emscripten installs handlers that turn our own errors into aborts; only ours may stay.
  const compiler = require("solc");
  process.removeAllListeners("uncaughtException");
  process.removeAllListeners("unhandledRejection");
  return compiler;
}

async function main() {
  const options = parse(process.argv.slice(2));
  if (options.mode === "--help" || options.mode === null) {
    process.stdout.write(`${USAGE}\n`);
    process.exitCode = options.mode === null ? 1 : 0;
  } else if (options.mode === "--version") {
    process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${loadCompiler().version()}\n`);
  } else {
    const input = await readInput(options.input);
    process.stdout.write(`${loadCompiler().compile(input, { import: reader(options) })}\n`);
  }
}

main().catch((error) => fail(`tools/solc: ${error.message}`));
