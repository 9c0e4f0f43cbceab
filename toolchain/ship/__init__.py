"""What a server needs, made from a bundle: a Triton model repository, or a service of our own."""
