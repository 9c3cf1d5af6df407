"""Profiles: where the time of a request goes, in the service (py-spy) and in PostgreSQL (explain); kept as text."""
