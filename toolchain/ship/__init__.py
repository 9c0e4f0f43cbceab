"""Prepares a bundle for a server or a hub: a Triton model repository, a service's folder or image, or an upload."""
