"""Examples: what a client of one's own can look like."""
