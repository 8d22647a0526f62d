#!/usr/bin/env bash
# Run torchrun on one node, handing SIGUSR1 on as SIGTERM: torchrun passes SIGTERM to its processes, SIGUSR1 ends it.
#   node.sh COMMAND
"$@" &
agent=$!
trap 'kill -TERM "$agent"' USR1 TERM
code=0
wait "$agent" || code=$?
while kill -0 "$agent" 2> /dev/null; do
    code=0
    wait "$agent" || code=$?
done
exit "$code"
