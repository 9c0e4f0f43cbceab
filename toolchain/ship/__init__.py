"""Prepare a bundle for a server: a Triton model repository, a folder for `docker compose up`, or a container image."""
