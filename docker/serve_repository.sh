#!/bin/sh
# Starts Triton on the repository at $MODELS (default /models) with the arguments that its models need. `toolchain ship
# triton` wrote them to tritonserver.txt beside each ensemble, one a line. Arguments of this script are passed on.
set -eu
models=${MODELS:-/models}
needed=$(find "$models/" -mindepth 2 -maxdepth 2 -name tritonserver.txt -exec sort -u {} +)
# A random key, which no one knows, closes the endpoints for operators. Loading and unloading is off by default.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' ')
closed=shared-memory,trace,logging
# shellcheck disable=SC2086  # no argument contains a space
exec tritonserver --model-repository="$models" $needed \
    --http-restricted-api=$closed:admin="$key" --grpc-restricted-protocol=$closed:admin="$key" "$@"
