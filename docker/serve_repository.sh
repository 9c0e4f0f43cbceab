#!/bin/sh
# Starts Triton on the repository at $MODELS (default /models) with the arguments that its models need. `toolchain ship
# triton` wrote these to the file tritonserver.txt beside each ensemble, one argument per line. Arguments of this script
# are passed on to Triton.
set -eu
models=${MODELS:-/models}
needed=$(find "$models/" -mindepth 2 -maxdepth 2 -name tritonserver.txt -exec sort -u {} +)
# Triton answers on the endpoints of $closed only if a request has this key. The key is random and is not shown to
# anyone, so these endpoints are closed. Loading and unloading of models is off by default.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' ')
closed=shared-memory,trace,logging
# shellcheck disable=SC2086  # no argument contains a space
exec tritonserver --model-repository="$models" $needed \
    --http-restricted-api=$closed:admin="$key" --grpc-restricted-protocol=$closed:admin="$key" "$@"
