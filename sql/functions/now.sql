-- The time, which tests can set: `set journal.now = '2026-01-01T00:00:00Z'`.
create or replace function journal.now() returns timestamptz
language sql volatile parallel safe as $$
  select coalesce(nullif(current_setting('journal.now', true), '')::timestamptz, clock_timestamp())
$$;
