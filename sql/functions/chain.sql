-- The chain after a commit that has a revision and no atom, as journal/core/chain.py has it; with an epoch, after the
-- commit that begins it.
create or replace function journal.chain(before bytea, revision bigint, epoch bytea default null) returns bytea
language sql immutable parallel safe as $$
  select sha256(before || '\x00000008'::bytea || int8send(revision)
                || coalesce('\x00000006'::bytea || epoch, ''::bytea))
$$;
