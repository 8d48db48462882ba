#!/usr/bin/env bash
# Start a broker cluster of three servers on loopback, with TLS and keys, and make its streams.
#
#   start-local.sh FOLDER [FIRST_PORT [OPTIONS OF `plait node broker init`, as --gateway OWNER]]
#
# Prints `ready URL` once jobs can be published; ends the servers on Ctrl-C or SIGTERM. What they stored stays in FOLDER.
# PLAIT and NATS_SERVER name the programs where they are not on PATH.
set -euo pipefail

folder=${1:?which folder? it gets the configuration, the keys and the data}
first=${2:-4222}
shift $(($# < 2 ? $# : 2))
plait=${PLAIT:-plait}
nats=${NATS_SERVER:-nats-server}

servers=()
url=
for number in 0 1 2; do
  servers+=(--server "n$((number + 1))=127.0.0.1:$((first + number)):$((first + 10 + number))")
  url+="${url:+,}tls://127.0.0.1:$((first + number))"
done
"$plait" node broker init "$folder" --listen 127.0.0.1 "${servers[@]}" "$@"

pids=()
stop() {
  kill "${pids[@]}" 2>/dev/null || true
  wait
}
trap stop EXIT
trap 'exit 0' INT TERM
for name in n1 n2 n3; do
  (cd "$folder/$name" && exec "$nats" -c nats.conf) &
  pids+=($!)
done

"$plait" node broker streams --broker "$url" --ca "$folder/ca.pem" --nkey "$folder/operator/operator.seed"
echo "ready $url"
wait
