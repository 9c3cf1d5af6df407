"""`python -m examples.todo`."""

from examples.todo.program import app

app(prog_name="todo")
