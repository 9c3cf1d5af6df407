"""JWTs as bearer tokens: verified by a secret, or by keys that are listed (docs/jwt.md)."""
