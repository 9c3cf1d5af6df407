"""The protocol, a verb a file. Knows no HTTP: it takes what was asked and gives what is to be said."""
