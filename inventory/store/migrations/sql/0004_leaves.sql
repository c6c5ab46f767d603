-- What is counted, packed by place: exact counts in any polygon.

CREATE TABLE urban_inventory.leaf (
    city_id INTEGER NOT NULL,
    class TEXT NOT NULL,
    key BIGINT NOT NULL,
    places BYTEA NOT NULL,
    changes BYTEA NOT NULL,
    CONSTRAINT leaf_pkey PRIMARY KEY (city_id, class, key),
    CONSTRAINT leaf_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE TABLE urban_inventory.leaf_list (
    city_id INTEGER NOT NULL,
    class TEXT NOT NULL,
    leaves BYTEA NOT NULL,
    CONSTRAINT leaf_list_pkey PRIMARY KEY (city_id, class),
    CONSTRAINT leaf_list_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE TABLE urban_inventory.leaf_delta (
    city_id INTEGER NOT NULL,
    class TEXT NOT NULL,
    lon INTEGER NOT NULL,
    lat INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    listed SMALLINT NOT NULL,
    verified SMALLINT NOT NULL,
    CONSTRAINT leaf_delta_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

-- Uncompressed: they are read far more often than written, and such numbers hardly shrink.
ALTER TABLE urban_inventory.leaf ALTER COLUMN places SET STORAGE EXTERNAL, ALTER COLUMN changes SET STORAGE EXTERNAL;

ALTER TABLE urban_inventory.leaf_list ALTER COLUMN leaves SET STORAGE EXTERNAL;

COMMENT ON TABLE urban_inventory.leaf IS 'what is counted, packed by place: the exact count in any polygon reads few rows of it';

COMMENT ON COLUMN urban_inventory.leaf.key IS 'the cell''s corner on the Morton curve, see domain/leaves.py';

COMMENT ON COLUMN urban_inventory.leaf.places IS 'an event after the other: longitude, latitude; int32, 1e-7 degree';

COMMENT ON COLUMN urban_inventory.leaf.changes IS 'likewise: instant (int64, microseconds since 1970), change of the count, of the verified (int16)';

COMMENT ON COLUMN urban_inventory.leaf_list.leaves IS 'all leaves of the class as columns';

COMMENT ON TABLE urban_inventory.leaf_delta IS 'append-only; what the leaves do not hold yet';

COMMENT ON COLUMN urban_inventory.leaf_delta.lon IS '1e-7 degree';

COMMENT ON COLUMN urban_inventory.leaf_delta.listed IS 'change of the count at this place and as-of instant';

DO $$
DECLARE
    known record;
    parent text;
BEGIN
    FOR known IN SELECT id FROM urban_inventory.city LOOP
        FOREACH parent IN ARRAY ARRAY['leaf', 'leaf_list', 'leaf_delta'] LOOP
            EXECUTE format('CREATE TABLE urban_inventory.%I PARTITION OF urban_inventory.%I FOR VALUES IN (%L)',
                parent || '_' || known.id, parent, known.id);
        END LOOP;
    END LOOP;
END $$;

-- All that is stored waits as deltas; the first change of each city packs them.
INSERT INTO urban_inventory.leaf_delta (city_id, class, lon, lat, at, listed, verified)
SELECT s.city_id, s.class, round(ST_X(s.geom) * 1e7)::int, round(ST_Y(s.geom) * 1e7)::int, e.at, e.sign,
    CASE WHEN s.verified AND NOT s.review THEN e.sign ELSE 0 END
FROM urban_inventory.asset_state s
CROSS JOIN LATERAL (VALUES (s.valid_from, 1), (s.valid_to, -1)) AS e (at, sign)
WHERE s.listed AND e.at IS NOT NULL;

-- Whoever writes states, and by whatever statement: the deltas are appended in the same transaction.
CREATE FUNCTION urban_inventory.append_leaf_deltas() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO urban_inventory.leaf_delta (city_id, class, lon, lat, at, listed, verified)
        SELECT s.city_id, s.class, round(ST_X(s.geom) * 1e7)::int, round(ST_Y(s.geom) * 1e7)::int, e.at, e.sign,
            CASE WHEN s.verified AND NOT s.review THEN e.sign ELSE 0 END
        FROM added s CROSS JOIN LATERAL (VALUES (s.valid_from, 1), (s.valid_to, -1)) AS e (at, sign)
        WHERE s.listed AND e.at IS NOT NULL;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO urban_inventory.leaf_delta (city_id, class, lon, lat, at, listed, verified)
        SELECT s.city_id, s.class, round(ST_X(s.geom) * 1e7)::int, round(ST_Y(s.geom) * 1e7)::int, e.at, e.sign,
            CASE WHEN s.verified AND NOT s.review THEN e.sign ELSE 0 END
        FROM removed s CROSS JOIN LATERAL (VALUES (s.valid_from, -1), (s.valid_to, 1)) AS e (at, sign)
        WHERE s.listed AND e.at IS NOT NULL;
    ELSE
        -- What an update leaves as it was cancels.
        INSERT INTO urban_inventory.leaf_delta (city_id, class, lon, lat, at, listed, verified)
        SELECT s.city_id, s.class, round(ST_X(s.geom) * 1e7)::int, round(ST_Y(s.geom) * 1e7)::int, e.at,
            sum(e.sign), sum(CASE WHEN s.verified AND NOT s.review THEN e.sign ELSE 0 END)
        FROM (SELECT a.*, 1 AS side FROM added a UNION ALL SELECT r.*, -1 FROM removed r) s
        CROSS JOIN LATERAL (VALUES (s.valid_from, s.side), (s.valid_to, -s.side)) AS e (at, sign)
        WHERE s.listed AND e.at IS NOT NULL
        GROUP BY 1, 2, 3, 4, 5
        HAVING sum(e.sign) <> 0 OR sum(CASE WHEN s.verified AND NOT s.review THEN e.sign ELSE 0 END) <> 0;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER asset_state_added AFTER INSERT ON urban_inventory.asset_state
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION urban_inventory.append_leaf_deltas();

CREATE TRIGGER asset_state_removed AFTER DELETE ON urban_inventory.asset_state
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION urban_inventory.append_leaf_deltas();

CREATE TRIGGER asset_state_changed AFTER UPDATE ON urban_inventory.asset_state
    REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION urban_inventory.append_leaf_deltas();

GRANT SELECT, INSERT, UPDATE, DELETE ON urban_inventory.leaf, urban_inventory.leaf_list, urban_inventory.leaf_delta
    TO urban_inventory_service;
