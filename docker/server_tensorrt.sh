#!/usr/bin/env bash
# Prints pip requirements for the version of TensorRT in this image, such as tensorrt-cu13==10.16.1.11 and its bindings.
# The version of the Debian package is, for example, 10.16.1.11-1+cuda13.2: library, revision, CUDA.
set -euo pipefail
version=$(dpkg-query --show --showformat='${Version}\n' 'libnvinfer[0-9]*' | head -1)
if [[ ! $version =~ ^([0-9.]+)-[0-9]+\+cuda([0-9]+) ]]; then
    echo "libnvinfer: the version '$version' of the Debian package does not have the form LIBRARY-REVISION+cudaCUDA." \
        "Choose another Triton image with --build-arg TRITON=TAG." >&2
    exit 1
fi
for package in "" -bindings; do
    echo "tensorrt-cu${BASH_REMATCH[2]}$package==${BASH_REMATCH[1]}"
done
