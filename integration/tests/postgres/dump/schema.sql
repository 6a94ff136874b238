CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE SCHEMA inner_part;
COMMENT ON SCHEMA inner_part IS 'a schema';
CREATE TYPE inner_part.mood AS ENUM ('low', 'so so', 'high');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE numbers START 5 INCREMENT 3 CACHE 4;
SELECT nextval('numbers'), nextval('numbers');
CREATE COLLATION backwards (provider = libc, locale = 'C');
CREATE TABLE customer (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL COLLATE backwards,
    mood inner_part.mood DEFAULT 'so so',
    thing pair,
    twice int GENERATED ALWAYS AS (length(name) * 2) STORED,
    number int DEFAULT nextval('numbers'),
    age positive,
    UNIQUE (name, number)
);
COMMENT ON COLUMN customer.name IS 'it''s "quoted"; $$ and \ too';
CREATE TABLE sale (
    customer int REFERENCES customer ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    on_day date NOT NULL,
    cost numeric(12, 3),
    data bytea,
    during tstzrange
) PARTITION BY RANGE (on_day);
CREATE TABLE sale_2025 PARTITION OF sale FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE sale_rest PARTITION OF sale DEFAULT;
CREATE INDEX ON sale (cost DESC NULLS LAST) INCLUDE (on_day) WHERE cost > 0;
CREATE VIEW big_sale AS SELECT customer, sum(cost) AS total FROM sale GROUP BY customer HAVING sum(cost) > 10;
CREATE MATERIALIZED VIEW day_sale AS SELECT on_day, count(*) FROM sale GROUP BY on_day WITH NO DATA;
CREATE FUNCTION grow(n int, OUT m int) LANGUAGE plpgsql IMMUTABLE SET search_path = inner_part, public AS $f$
BEGIN
    m := n + 1; -- a comment with 'a quote
END $f$;
CREATE PROCEDURE forget(who int) LANGUAGE sql BEGIN ATOMIC DELETE FROM customer WHERE id = who; END;
CREATE AGGREGATE product(float8) (SFUNC = float8mul, STYPE = float8, INITCOND = '1');
CREATE OPERATOR #=# (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE FUNCTION notice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'a %', TG_OP; RETURN NEW; END $$;
CREATE TRIGGER told AFTER INSERT OR UPDATE ON customer FOR EACH ROW WHEN (NEW.age > 1) EXECUTE FUNCTION notice();
CREATE RULE quiet AS ON DELETE TO sale_rest WHERE OLD.cost IS NULL DO INSTEAD NOTHING;
ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON customer FOR SELECT TO app USING (name = current_user);
CREATE PUBLICATION all_of_it FOR TABLE customer WHERE (id > 0);
CREATE STATISTICS together (dependencies) ON name, number FROM customer;
CREATE TEXT SEARCH CONFIGURATION plainly (COPY = simple);
GRANT SELECT (name), UPDATE (mood) ON customer TO app;
GRANT ALL ON SEQUENCE numbers TO app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA inner_part GRANT SELECT ON TABLES TO app;
ALTER DATABASE shop SET work_mem = '7MB';
INSERT INTO customer (name, thing, age) SELECT 'name ' || n, (n, repeat(E'\t\\', n % 7))::pair, n FROM generate_series(1, 300) n;
INSERT INTO sale SELECT n % 300 + 1, '2024-06-01'::date + n, n * 1.005, decode(md5(n::text), 'hex') FROM generate_series(1, 900) n;
REFRESH MATERIALIZED VIEW day_sale;
SELECT lo_from_bytea(4711, decode(repeat('00ff', 5000), 'hex'));
