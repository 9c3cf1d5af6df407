"""A to-do list for the terminal that works offline: what an application on `journal.client.Replica` looks like.

`python -m examples.todo --help`. Each command opens the file, does one thing and closes it (program.py, with the
blocking façade); `watch` stays and syncs (watching.py, with asyncio). Two programs may work on one file. With
`python -m examples.todo.cable` the network between one of them and the service can be cut.
"""
