"""Types of the records that the toolchain writes as JSON: one module for each file format.

A `TypedDict` names each key with its type and its unit, and the text below a key describes its value. docs/reference/
is generated from these types. This package imports no other package of the toolchain, so that every other module may
import it.
"""
