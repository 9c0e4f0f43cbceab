"""HTTP: the server, the ASGI application, the codec of bodies, and the pages."""
