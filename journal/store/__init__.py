"""PostgreSQL: the only code that runs queries. asyncpg and its errors end here."""
