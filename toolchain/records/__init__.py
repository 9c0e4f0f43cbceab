"""The records that the toolchain writes as JSON, as types: one module for each file format.

A `TypedDict` names each key with its type and its unit; the text below a key says what it means. docs/reference/ is
generated from these types. This package imports nothing, so every other module may use it.
"""
