"""The service described for programs and people, made of what its handlers themselves read and tell."""
