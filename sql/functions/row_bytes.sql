-- How many bytes a row of a table takes on its pages, indexes and long values included; by the figures of the planner, or
-- of the statistics where it was not analysed yet: an estimate.
create or replace function journal.row_bytes(of_table regclass) returns float8
language sql stable as $$
  select coalesce(pg_total_relation_size(of_table)
                  / nullif(greatest(c.reltuples, pg_stat_get_live_tuples(of_table)), 0), 0)::float8
    from pg_class c where c.oid = of_table
$$;
