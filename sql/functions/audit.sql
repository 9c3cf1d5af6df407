-- Writes down what an operator did.
create or replace function journal.note(of_journal int, operator text, what text, how json) returns void
language sql as $$
  insert into journal.audit (journal_id, at, by, action, detail)
  values (of_journal, journal.now(), operator, what, how)
$$;
