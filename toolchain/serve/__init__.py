"""The standalone service: it serves one bundle over HTTP and gRPC.

The protocol is the Open Inference Protocol with Triton's extensions.

`http/` and `grpc/` parse each message into an InferRequest (protocol.py), pass it to the one Service (service.py), and
write its response or its refusal as a message. The Service checks the request (checks.py), tokenises its texts, and
gives the rows to the batcher. In `batching/`, worker threads own the engines. server.py starts and stops all of this.
"""
