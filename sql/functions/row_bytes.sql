-- How many bytes a row of a table takes on its pages, indexes and long values included; by the planner's figures, so an
-- estimate, and 0 before the table was first analysed.
create or replace function journal.row_bytes(of_table regclass) returns float8
language sql stable as $$
  select coalesce(pg_total_relation_size(of_table) / nullif(greatest(c.reltuples, 0), 0), 0)::float8
    from pg_class c where c.oid = of_table
$$;
