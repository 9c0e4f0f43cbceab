"""HTTP: the server and its connections, the application, the codec of bodies, and the pages."""
