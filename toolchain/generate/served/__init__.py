"""Language models that another program serves, measured from outside: `toolchain generate --backend openai`.

`endpoint.py` knows the server and its errors, `stream.py` reads one streamed reply, `load.py` keeps a number of streams
in flight, `measure.py` makes the record, `compare.py` puts two records side by side.
"""
