CREATE INDEX asset_state_next_idx ON urban_inventory.asset_state
    ((floor(ST_X(geom) * 50)::integer * 18000 + floor(ST_Y(geom) * 50)::integer), asset_id);
