-- A city's version: another one after every change, so that what was read of it may be kept until then.

ALTER TABLE urban_inventory.city ADD COLUMN version BIGINT DEFAULT 0 NOT NULL;

COMMENT ON COLUMN urban_inventory.city.version IS 'another one after every change of anything of the city';

-- Also for who writes states past the program's lock.
CREATE OR REPLACE FUNCTION urban_inventory.append_leaf_deltas() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('urban_inventory.leaf_deltas', true) = 'held' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO urban_inventory.leaf_delta (city_id, class, lon, lat, at, listed, verified)
        SELECT s.city_id, s.class, round(ST_X(s.geom) * 1e7)::int, round(ST_Y(s.geom) * 1e7)::int, e.at, e.sign,
            CASE WHEN s.verified AND NOT s.review THEN e.sign ELSE 0 END
        FROM added s CROSS JOIN LATERAL (VALUES (s.valid_from, 1), (s.valid_to, -1)) AS e (at, sign)
        WHERE s.listed AND e.at IS NOT NULL;
        UPDATE urban_inventory.city SET version = version + 1 WHERE id IN (SELECT city_id FROM added);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO urban_inventory.leaf_delta (city_id, class, lon, lat, at, listed, verified)
        SELECT s.city_id, s.class, round(ST_X(s.geom) * 1e7)::int, round(ST_Y(s.geom) * 1e7)::int, e.at, e.sign,
            CASE WHEN s.verified AND NOT s.review THEN e.sign ELSE 0 END
        FROM removed s CROSS JOIN LATERAL (VALUES (s.valid_from, -1), (s.valid_to, 1)) AS e (at, sign)
        WHERE s.listed AND e.at IS NOT NULL;
        UPDATE urban_inventory.city SET version = version + 1 WHERE id IN (SELECT city_id FROM removed);
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
        UPDATE urban_inventory.city SET version = version + 1 WHERE id IN (SELECT city_id FROM added);
    END IF;
    RETURN NULL;
END $$;
