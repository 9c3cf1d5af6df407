"""HTTP: what was asked, read from a request; what is said, written to an answer. aiohttp ends here."""
