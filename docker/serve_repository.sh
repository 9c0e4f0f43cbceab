#!/bin/sh
# Starts Triton on the repository at $MODELS (/models unless said otherwise) with what the models there need, which
# `toolchain ship triton` wrote into their tritonserver.txt, an argument a line. Arguments of its own are passed on.
set -eu
models=${MODELS:-/models}
needed=$(find "$models/" -mindepth 2 -maxdepth 2 -name tritonserver.txt -exec sort -u {} +)
# What only an operator may do needs a key that nobody has; loading and unloading is off anyway.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' ')
closed=shared-memory,trace,logging
# shellcheck disable=SC2086  # no argument has a blank in it
exec tritonserver --model-repository="$models" $needed \
    --http-restricted-api=$closed:admin="$key" --grpc-restricted-protocol=$closed:admin="$key" "$@"
