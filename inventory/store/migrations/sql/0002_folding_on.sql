-- States carry what a fold needs to go on from them, and the change that said them; history keeps whole states.

CREATE SEQUENCE urban_inventory.change_id_seq;

CREATE TABLE urban_inventory.look_cell (
    city_id INTEGER NOT NULL,
    class TEXT NOT NULL,
    campaign_id BIGINT NOT NULL,
    cell BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    area_m2 DOUBLE PRECISION NOT NULL,
    CONSTRAINT look_cell_pkey PRIMARY KEY (city_id, class, campaign_id, cell),
    CONSTRAINT look_cell_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

COMMENT ON TABLE urban_inventory.look_cell IS 'what a look saw in each square kilometre: how its ground is divided for listing (R8)';

COMMENT ON COLUMN urban_inventory.look_cell.hits IS 'observations on ground that their own scene owns';

COMMENT ON COLUMN urban_inventory.look_cell.area_m2 IS 'surveyed ground';

CREATE TABLE urban_inventory.change (
    city_id INTEGER NOT NULL,
    id BIGINT DEFAULT nextval('urban_inventory.change_id_seq') NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    cause TEXT NOT NULL,
    subject TEXT,
    author TEXT NOT NULL,
    CONSTRAINT change_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT change_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

COMMENT ON TABLE urban_inventory.change IS 'what made the stored states change (R14)';

COMMENT ON COLUMN urban_inventory.change.cause IS 'what was done';

COMMENT ON COLUMN urban_inventory.change.subject IS 'to what: a scene, a survey, a decision, a model';

CREATE UNLOGGED TABLE urban_inventory.staging_end (
    job BIGINT NOT NULL,
    state_id BIGINT NOT NULL,
    removed BOOLEAN NOT NULL,
    valid_to TIMESTAMP WITH TIME ZONE
);

CREATE INDEX staging_end_job_idx ON urban_inventory.staging_end (job);

COMMENT ON COLUMN urban_inventory.staging_end.valid_to IS 'of a state that stays: where it ends now';

CREATE UNLOGGED TABLE urban_inventory.staging_hit (
    job BIGINT NOT NULL,
    observation_id BIGINT NOT NULL,
    asset_id BIGINT NOT NULL
);

CREATE INDEX staging_hit_job_idx ON urban_inventory.staging_hit (job);

ALTER TABLE urban_inventory.survey DROP COLUMN shift_m;

ALTER TABLE urban_inventory.survey_class ADD COLUMN folded_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN folded_campaign BIGINT, ADD COLUMN shift_x_m DOUBLE PRECISION, ADD COLUMN shift_y_m DOUBLE PRECISION, ADD COLUMN shift_pairs INTEGER;

ALTER TABLE urban_inventory.observation ADD COLUMN cell BIGINT;

UPDATE urban_inventory.observation SET cell = floor(x / 1000)::bigint * 4294967296 + floor(y / 1000)::bigint;

ALTER TABLE urban_inventory.observation ALTER COLUMN cell SET NOT NULL;

ALTER TABLE urban_inventory.staging_observation ADD COLUMN cell BIGINT NOT NULL;

DROP INDEX urban_inventory.observation_survey_idx;

CREATE INDEX observation_survey_idx ON urban_inventory.observation (survey_id, class, cell);

ALTER TABLE urban_inventory.decision ADD COLUMN folded BOOLEAN DEFAULT false NOT NULL;

CREATE INDEX decision_place_idx ON urban_inventory.decision (class, x, y);

CREATE INDEX decision_unfolded_idx ON urban_inventory.decision (class) WHERE not folded;

ALTER TABLE urban_inventory.asset ADD COLUMN anchor BIGINT;

UPDATE urban_inventory.asset SET anchor = root_observation;

CREATE INDEX asset_anchor_idx ON urban_inventory.asset (anchor);

CREATE INDEX asset_alias_idx ON urban_inventory.asset (alias_of) WHERE alias_of is not null;

-- Memberships speak of the areas alone; they were cut to each state's own time.
UPDATE urban_inventory.membership SET valid_from = '-infinity';

COMMENT ON TABLE urban_inventory.membership IS 'the area version of each level that holds a state''s position, and when, if the state is valid (R12)';

COMMENT ON COLUMN urban_inventory.membership.valid_to IS 'null: until now';

-- Written straight into their tables from now on.
DROP TABLE urban_inventory.staging_state, urban_inventory.staging_membership;

ALTER TABLE urban_inventory.history RENAME TO history_by_line;

ALTER INDEX urban_inventory.history_pkey RENAME TO history_by_line_pkey;

ALTER INDEX urban_inventory.history_asset_idx RENAME TO history_by_line_asset_idx;

CREATE TABLE urban_inventory.history (
    city_id INTEGER NOT NULL,
    id BIGINT NOT NULL,
    asset_id BIGINT,
    observation_id BIGINT,
    decision_id BIGINT,
    survey_id BIGINT,
    class TEXT NOT NULL,
    valid_from TIMESTAMP WITH TIME ZONE NOT NULL,
    valid_to TIMESTAMP WITH TIME ZONE,
    listed BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    verified BOOLEAN NOT NULL,
    review BOOLEAN NOT NULL,
    probability REAL NOT NULL,
    geom geometry(POINT,4326) NOT NULL,
    x DOUBLE PRECISION NOT NULL,
    y DOUBLE PRECISION NOT NULL,
    error_m REAL NOT NULL,
    width_m REAL NOT NULL,
    height_m REAL NOT NULL,
    score REAL,
    hits SMALLINT NOT NULL,
    first_seen TIMESTAMP WITH TIME ZONE NOT NULL,
    last_seen TIMESTAMP WITH TIME ZONE NOT NULL,
    first_missed TIMESTAMP WITH TIME ZONE,
    details JSONB,
    digest BIGINT NOT NULL,
    change_id BIGINT,
    track BIGINT NOT NULL,
    minted_as TEXT NOT NULL,
    cell BIGINT NOT NULL,
    look BIGINT,
    hit BOOLEAN NOT NULL,
    placed BOOLEAN NOT NULL,
    felled BOOLEAN NOT NULL,
    misses SMALLINT NOT NULL,
    model BIGINT,
    content BIGINT NOT NULL,
    merged_into BIGINT,
    replaces BIGINT,
    ended_by BIGINT NOT NULL,
    CONSTRAINT history_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT history_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE INDEX history_asset_idx ON urban_inventory.history (asset_id);

COMMENT ON TABLE urban_inventory.history IS 'states that are no longer said (R14). What was known at R: what was said by then and not ended yet; each state lasted until the next one of its track';

COMMENT ON COLUMN urban_inventory.history.ended_by IS 'the change since which it is no longer said';

-- New partitioned tables need a partition for every city there is.
DO $$
DECLARE
    known record;
    parent text;
BEGIN
    FOR known IN SELECT id FROM urban_inventory.city LOOP
        EXECUTE format('ALTER TABLE urban_inventory.%I RENAME TO %I',
            'history_' || known.id, 'history_by_line_' || known.id);
        FOREACH parent IN ARRAY ARRAY['change', 'history', 'look_cell'] LOOP
            EXECUTE format('CREATE TABLE urban_inventory.%I PARTITION OF urban_inventory.%I FOR VALUES IN (%L)',
                parent || '_' || known.id, parent, known.id);
        END LOOP;
    END LOOP;
END $$;

-- Who said what so far: one change for all that was recorded together.
INSERT INTO urban_inventory.change (city_id, recorded_at, cause, subject, author)
SELECT DISTINCT city_id, recorded_at, cause, cause_id, author FROM urban_inventory.history_by_line ORDER BY recorded_at;

ALTER TABLE urban_inventory.asset_state ADD COLUMN change_id BIGINT, ADD COLUMN track BIGINT,
    ADD COLUMN minted_as TEXT, ADD COLUMN cell BIGINT, ADD COLUMN look BIGINT,
    ADD COLUMN hit BOOLEAN DEFAULT false NOT NULL, ADD COLUMN placed BOOLEAN DEFAULT false NOT NULL,
    ADD COLUMN felled BOOLEAN DEFAULT false NOT NULL, ADD COLUMN misses SMALLINT DEFAULT 0 NOT NULL,
    ADD COLUMN model BIGINT, ADD COLUMN content BIGINT DEFAULT 0 NOT NULL, ADD COLUMN merged_into BIGINT,
    ADD COLUMN replaces BIGINT;

-- No survey counts as folded yet: the first change of a city folds it from nothing, which fills in the rest.
UPDATE urban_inventory.asset_state s SET
    change_id = (
        SELECT c.id FROM urban_inventory.history_by_line h
        JOIN urban_inventory.change c ON c.city_id = h.city_id AND c.recorded_at = h.recorded_at
            AND c.cause = h.cause AND c.subject IS NOT DISTINCT FROM h.cause_id AND c.author = h.author
        WHERE h.city_id = s.city_id AND h.state_id = s.id AND h.change = 1 ORDER BY h.id DESC LIMIT 1),
    track = coalesce(
        (SELECT coalesce(a.root_observation, -a.root_decision) FROM urban_inventory.asset a
         WHERE a.city_id = s.city_id AND a.id = s.asset_id), s.observation_id, 0),
    minted_as = coalesce(
        (SELECT a.class FROM urban_inventory.asset a WHERE a.city_id = s.city_id AND a.id = s.asset_id), s.class),
    cell = floor(s.x / 1000)::bigint * 4294967296 + floor(s.y / 1000)::bigint;

ALTER TABLE urban_inventory.asset_state ALTER COLUMN track SET NOT NULL, ALTER COLUMN minted_as SET NOT NULL,
    ALTER COLUMN cell SET NOT NULL, ALTER COLUMN hit DROP DEFAULT, ALTER COLUMN placed DROP DEFAULT,
    ALTER COLUMN felled DROP DEFAULT, ALTER COLUMN misses DROP DEFAULT,
    ALTER COLUMN content DROP DEFAULT;

DROP INDEX urban_inventory.asset_state_class_idx;

CREATE INDEX asset_state_cell_idx ON urban_inventory.asset_state (minted_as, cell);

COMMENT ON COLUMN urban_inventory.survey_class.folded_at IS 'instant of the look that the stored states hold it for; null: none';

COMMENT ON COLUMN urban_inventory.survey_class.folded_campaign IS 'that look''s campaign; its scene may have left it since';

COMMENT ON COLUMN urban_inventory.survey_class.shift_x_m IS 'shift of its scene that the stored states are free of (R7)';

COMMENT ON COLUMN urban_inventory.survey_class.shift_pairs IS 'pairs that show the shift; null: cannot tell';

COMMENT ON COLUMN urban_inventory.observation.cell IS 'square kilometre of (x, y), see domain/cells.py';

COMMENT ON COLUMN urban_inventory.decision.folded IS 'in the stored states';

COMMENT ON COLUMN urban_inventory.asset.anchor IS 'the root or, while it is no evidence, the track''s next observation';

COMMENT ON COLUMN urban_inventory.asset_state.change_id IS 'the change that said so';

COMMENT ON COLUMN urban_inventory.asset_state.track IS 'observation that minted it, or −decision';

COMMENT ON COLUMN urban_inventory.asset_state.minted_as IS 'class of the evidence';

COMMENT ON COLUMN urban_inventory.asset_state.cell IS 'square kilometre of (x, y)';

COMMENT ON COLUMN urban_inventory.asset_state.look IS 'campaign: the newest adequate look at its ground';

COMMENT ON COLUMN urban_inventory.asset_state.hit IS 'whether that look saw it';

COMMENT ON COLUMN urban_inventory.asset_state.placed IS 'a person said where it is (R11)';

COMMENT ON COLUMN urban_inventory.asset_state.felled IS 'a person said that it is gone (R9)';

COMMENT ON COLUMN urban_inventory.asset_state.misses IS 'adequate misses since the last hit';

COMMENT ON COLUMN urban_inventory.asset_state.model IS 'number of the model that last saw it';

COMMENT ON COLUMN urban_inventory.asset_state.content IS 'hash of the newest hit';

COMMENT ON COLUMN urban_inventory.asset_state.merged_into IS 'track of which it is a part (R11)';

COMMENT ON COLUMN urban_inventory.asset_state.replaces IS 'track whose place it has taken (R9)';

COMMENT ON COLUMN urban_inventory.membership.valid_from IS '-infinity: always';

INSERT INTO urban_inventory.history (
    city_id, id, asset_id, observation_id, decision_id, survey_id, class, valid_from, valid_to, listed, status,
    verified, review, probability, geom, x, y, error_m, width_m, height_m, score, hits, first_seen, last_seen,
    first_missed, details, digest, track, minted_as, cell, hit, placed, felled, misses, content, ended_by)
SELECT DISTINCT ON (h.city_id, h.state_id) h.city_id, h.state_id, p.asset_id, p.observation_id, p.decision_id, p.survey_id, p.class, p.valid_from, p.valid_to, p.listed, p.status,
    p.verified, p.review, p.probability,
    ST_Transform(ST_SetSRID(ST_MakePoint(p.x, p.y), substring(m.metric_crs from '[0-9]+')::integer), 4326),
    p.x, p.y, p.error_m, p.width_m, p.height_m, p.score, p.hits, p.first_seen, p.last_seen,
    p.first_missed, p.details, 0, coalesce(p.observation_id, 0), p.class,
    floor(p.x / 1000)::bigint * 4294967296 + floor(p.y / 1000)::bigint, false, false, false, 0, 0, c.id
FROM urban_inventory.history_by_line h
JOIN urban_inventory.city m ON m.id = h.city_id
JOIN urban_inventory.change c ON c.city_id = h.city_id AND c.recorded_at = h.recorded_at
    AND c.cause = h.cause AND c.subject IS NOT DISTINCT FROM h.cause_id AND c.author = h.author
CROSS JOIN LATERAL jsonb_populate_record(NULL::urban_inventory.asset_state, h.state) p
WHERE h.change = -1
ORDER BY h.city_id, h.state_id, h.id DESC;

DROP TABLE urban_inventory.history_by_line;

DROP SEQUENCE urban_inventory.history_id_seq;

GRANT SELECT, INSERT, UPDATE, DELETE ON urban_inventory.look_cell, urban_inventory.staging_end,
    urban_inventory.staging_hit TO urban_inventory_service;

-- Appended and never rewritten, but by the owner.
GRANT SELECT, INSERT ON urban_inventory.change, urban_inventory.history TO urban_inventory_service;

GRANT USAGE ON SEQUENCE urban_inventory.change_id_seq TO urban_inventory_service
