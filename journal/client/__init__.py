"""What talks to the service over HTTP: knows the protocol, not the server's code."""
