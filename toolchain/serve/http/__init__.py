"""HTTP: the ASGI application, its codecs and its pages."""
