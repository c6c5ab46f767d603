-- How probably an asset is, if an error at all, one that every look of its model repeats (R8).

ALTER TABLE urban_inventory.asset_state ADD COLUMN lasting REAL DEFAULT 0 NOT NULL;

ALTER TABLE urban_inventory.asset_state ALTER COLUMN lasting DROP DEFAULT;

ALTER TABLE urban_inventory.history ADD COLUMN lasting REAL DEFAULT 0 NOT NULL;

ALTER TABLE urban_inventory.history ALTER COLUMN lasting DROP DEFAULT;

COMMENT ON COLUMN urban_inventory.asset_state.lasting IS 'if an error: how probably one that repeats (R8)';

COMMENT ON COLUMN urban_inventory.decision.asset IS 'the public id that the person named, or that an addition met';

-- What is stored was folded without it.
UPDATE urban_inventory.survey_class SET folded_at = NULL, folded_campaign = NULL WHERE folded_at IS NOT NULL;
