CREATE INDEX asset_state_next_idx ON urban_inventory.asset_state
    ((floor(ST_X(geom) * 100)::integer * 36000 + floor(ST_Y(geom) * 100)::integer), asset_id);
