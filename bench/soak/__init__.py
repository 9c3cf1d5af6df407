"""A long run: the service as its users run it, under a mixed load at a moderate rate, while things happen to it.

`python -m bench.soak [--minutes 60] [--json FILE] [--dsn DSN]`, or `make soak`. The rule: whatever was not announced
fails the run. A 503 or a broken connection is expected while PostgreSQL or the service is being restarted, a 410 after
an operator has called clients back; anything else, a lost or doubled change, a copy that differs and growth do not
pass.

place    the processes: PostgreSQL, the service, and what they take of the machine
tally    what was answered, how fast, and what of the trouble had been announced
clients  who pushes, pulls, polls and comes back by the protocol; what they hold is held against the server's digests
streams  some hundreds that listen
plan     the load, what happens when, and the end of it
verdict  the first tenth against the last
"""
