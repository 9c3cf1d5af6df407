-- A moment as RFC 3339 writes it, in UTC, with microseconds.
create or replace function journal.rfc3339(moment timestamptz) returns text
language sql stable parallel safe as $$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
