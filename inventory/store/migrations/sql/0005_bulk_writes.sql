-- Held triggers append nothing (inventory/store/leaves.py). And partitions by city need no foreign key to it: each takes
-- rows of its own city alone and goes with it.

ALTER TABLE urban_inventory.observation DROP CONSTRAINT IF EXISTS observation_city_id_fkey;

ALTER TABLE urban_inventory.decision DROP CONSTRAINT IF EXISTS decision_city_id_fkey;

ALTER TABLE urban_inventory.asset DROP CONSTRAINT IF EXISTS asset_city_id_fkey;

ALTER TABLE urban_inventory.asset_hit DROP CONSTRAINT IF EXISTS asset_hit_city_id_fkey;

ALTER TABLE urban_inventory.asset_state DROP CONSTRAINT IF EXISTS asset_state_city_id_fkey;

ALTER TABLE urban_inventory.look_cell DROP CONSTRAINT IF EXISTS look_cell_city_id_fkey;

ALTER TABLE urban_inventory.membership DROP CONSTRAINT IF EXISTS membership_city_id_fkey;

ALTER TABLE urban_inventory.area_count_delta DROP CONSTRAINT IF EXISTS area_count_delta_city_id_fkey;

ALTER TABLE urban_inventory.leaf DROP CONSTRAINT IF EXISTS leaf_city_id_fkey;

ALTER TABLE urban_inventory.leaf_list DROP CONSTRAINT IF EXISTS leaf_list_city_id_fkey;

ALTER TABLE urban_inventory.leaf_delta DROP CONSTRAINT IF EXISTS leaf_delta_city_id_fkey;

ALTER TABLE urban_inventory.coverage DROP CONSTRAINT IF EXISTS coverage_city_id_fkey;

ALTER TABLE urban_inventory.change DROP CONSTRAINT IF EXISTS change_city_id_fkey;

ALTER TABLE urban_inventory.history DROP CONSTRAINT IF EXISTS history_city_id_fkey;

ALTER TABLE urban_inventory.scene_log DROP CONSTRAINT IF EXISTS scene_log_city_id_fkey;

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
