"""The standalone service: one bundle behind HTTP and gRPC, in the Open Inference Protocol with Triton's extensions.

`http/` and `grpc/` turn messages into an InferRequest (protocol.py), call the one Service (service.py), and turn its
response or its refusal into a message. The service checks the request (checks.py), tokenises its texts, and
gives the rows to the batcher. In `batching/`, worker threads own the engines. server.py is the process around this.
"""
