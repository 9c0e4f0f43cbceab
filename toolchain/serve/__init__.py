"""The standalone service: one bundle behind HTTP and gRPC, in the Open Inference Protocol and Triton's extensions.

Both wires turn what arrives into an InferRequest (protocol.py), give it to the one Service and turn its answer, or
its refusal, back. The service checks, tokenises and hands the rows to the batcher; workers own the engine.
"""
