-- The first house: every table, and the sequences of those that are partitioned.

CREATE SEQUENCE urban_inventory.observation_id_seq;

CREATE SEQUENCE urban_inventory.decision_id_seq;

CREATE SEQUENCE urban_inventory.asset_id_seq;

CREATE SEQUENCE urban_inventory.asset_state_id_seq;

CREATE SEQUENCE urban_inventory.history_id_seq;

CREATE SEQUENCE urban_inventory.scene_log_id_seq;

CREATE SEQUENCE urban_inventory.job_number_seq;

CREATE TABLE urban_inventory.asset_class (
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    label JSONB NOT NULL,
    CONSTRAINT asset_class_pkey PRIMARY KEY (name),
    CONSTRAINT asset_class_kind_check CHECK (kind in ('static', 'mobile'))
);

COMMENT ON TABLE urban_inventory.asset_class IS 'copy of the taxonomy, so that SQL clients can join it';

CREATE TABLE urban_inventory.city (
    id INTEGER GENERATED ALWAYS AS IDENTITY,
    code TEXT NOT NULL,
    name TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    metric_crs TEXT NOT NULL,
    boundary geometry(MULTIPOLYGON,4326) NOT NULL,
    boundary_given BOOLEAN DEFAULT false NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT city_pkey PRIMARY KEY (id),
    CONSTRAINT city_code_check CHECK (code ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    CONSTRAINT city_code_key UNIQUE (code)
);

COMMENT ON COLUMN urban_inventory.city.code IS 'the name in addresses: puer';

COMMENT ON COLUMN urban_inventory.city.time_zone IS 'IANA name; a date is a whole local day in it';

COMMENT ON COLUMN urban_inventory.city.metric_crs IS 'authority:code in which distances are computed';

CREATE TABLE urban_inventory.principal (
    id INTEGER GENERATED ALWAYS AS IDENTITY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT principal_pkey PRIMARY KEY (id),
    CONSTRAINT principal_kind_check CHECK (kind in ('person', 'key')),
    CONSTRAINT principal_name_key UNIQUE (name)
);

CREATE UNLOGGED TABLE urban_inventory.staging_membership (
    job BIGINT NOT NULL,
    state_id BIGINT NOT NULL,
    area_version_id BIGINT NOT NULL,
    valid_from TIMESTAMP WITH TIME ZONE NOT NULL,
    valid_to TIMESTAMP WITH TIME ZONE
);

CREATE INDEX staging_membership_job_idx ON urban_inventory.staging_membership (job);

CREATE UNLOGGED TABLE urban_inventory.staging_observation (
    job BIGINT NOT NULL,
    survey_id BIGINT NOT NULL,
    class TEXT NOT NULL,
    lon DOUBLE PRECISION NOT NULL,
    lat DOUBLE PRECISION NOT NULL,
    x DOUBLE PRECISION NOT NULL,
    y DOUBLE PRECISION NOT NULL,
    error_m REAL NOT NULL,
    width_m REAL NOT NULL,
    height_m REAL NOT NULL,
    score REAL NOT NULL,
    plausible BOOLEAN NOT NULL,
    x_min REAL NOT NULL,
    y_min REAL NOT NULL,
    x_max REAL NOT NULL,
    y_max REAL NOT NULL
);

CREATE INDEX staging_observation_job_idx ON urban_inventory.staging_observation (job);

CREATE UNLOGGED TABLE urban_inventory.staging_state (
    job BIGINT NOT NULL,
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
    lon DOUBLE PRECISION NOT NULL,
    lat DOUBLE PRECISION NOT NULL,
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
    digest BIGINT NOT NULL
);

CREATE INDEX staging_state_job_idx ON urban_inventory.staging_state (job);

CREATE TABLE urban_inventory.area_count_delta (
    city_id INTEGER NOT NULL,
    area_version_id BIGINT NOT NULL,
    class TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    listed INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    CONSTRAINT area_count_delta_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE INDEX area_count_delta_idx ON urban_inventory.area_count_delta (area_version_id, class, at) INCLUDE (listed, verified);

COMMENT ON TABLE urban_inventory.area_count_delta IS 'append-only; the count as of T is the sum of what happened at or before T';

COMMENT ON COLUMN urban_inventory.area_count_delta.area_version_id IS '0 is the whole city';

COMMENT ON COLUMN urban_inventory.area_count_delta.listed IS 'change of the count at this as-of instant';

CREATE TABLE urban_inventory.asset (
    city_id INTEGER NOT NULL,
    id BIGINT DEFAULT nextval('urban_inventory.asset_id_seq') NOT NULL,
    public_id TEXT NOT NULL,
    class TEXT NOT NULL,
    root_observation BIGINT,
    root_decision BIGINT,
    alias_of BIGINT,
    replaces BIGINT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT asset_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT asset_city_id_public_id_key UNIQUE (city_id, public_id),
    CONSTRAINT asset_city_id_root_observation_key UNIQUE (city_id, root_observation),
    CONSTRAINT asset_city_id_root_decision_key UNIQUE (city_id, root_decision),
    CONSTRAINT asset_root_check CHECK ((root_observation is null) <> (root_decision is null)),
    CONSTRAINT asset_alias_check CHECK (alias_of <> id),
    CONSTRAINT asset_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

COMMENT ON TABLE urban_inventory.asset IS 'identities: never deleted, never used twice';

COMMENT ON COLUMN urban_inventory.asset.class IS 'the class it was minted as';

COMMENT ON COLUMN urban_inventory.asset.root_observation IS 'the observation that minted it (R7)';

COMMENT ON COLUMN urban_inventory.asset.root_decision IS 'or the decision';

COMMENT ON COLUMN urban_inventory.asset.alias_of IS 'the older id of the same track, while they share it';

CREATE TABLE urban_inventory.asset_hit (
    city_id INTEGER NOT NULL,
    observation_id BIGINT NOT NULL,
    asset_id BIGINT NOT NULL,
    CONSTRAINT asset_hit_pkey PRIMARY KEY (city_id, observation_id),
    CONSTRAINT asset_hit_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE INDEX asset_hit_asset_idx ON urban_inventory.asset_hit (asset_id);

COMMENT ON TABLE urban_inventory.asset_hit IS 'which observations an asset''s track was last made of';

CREATE TABLE urban_inventory.asset_state (
    city_id INTEGER NOT NULL,
    id BIGINT DEFAULT nextval('urban_inventory.asset_state_id_seq') NOT NULL,
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
    CONSTRAINT asset_state_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT asset_state_status_check CHECK (status in ('present', 'doubtful', 'gone', 'rejected')),
    CONSTRAINT asset_state_valid_check CHECK (valid_to is null or valid_to > valid_from),
    CONSTRAINT asset_state_probability_check CHECK (probability between 0 and 1),
    CONSTRAINT asset_state_subject_check CHECK ((asset_id is null) <= (observation_id is not null)),
    CONSTRAINT asset_state_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE INDEX asset_state_asset_idx ON urban_inventory.asset_state (asset_id, valid_from);

CREATE INDEX asset_state_class_idx ON urban_inventory.asset_state (class, valid_from);

CREATE INDEX asset_state_geom_idx ON urban_inventory.asset_state USING gist (geom);

CREATE INDEX asset_state_now_idx ON urban_inventory.asset_state USING gist (geom) WHERE listed and valid_to is null;

COMMENT ON TABLE urban_inventory.asset_state IS 'what the fold says of every asset, by as-of time (R1)';

COMMENT ON COLUMN urban_inventory.asset_state.asset_id IS 'null for mobile classes, which have no identity (R10)';

COMMENT ON COLUMN urban_inventory.asset_state.observation_id IS 'the newest evidence, if an observation';

COMMENT ON COLUMN urban_inventory.asset_state.decision_id IS 'the newest evidence, if a decision';

COMMENT ON COLUMN urban_inventory.asset_state.valid_to IS 'null: until now';

COMMENT ON COLUMN urban_inventory.asset_state.listed IS 'counted as present (R8)';

COMMENT ON COLUMN urban_inventory.asset_state.review IS 'later imagery asks a person again (R11)';

COMMENT ON COLUMN urban_inventory.asset_state.first_missed IS 'first adequate look without a hit since last_seen (R9)';

COMMENT ON COLUMN urban_inventory.asset_state.digest IS 'hash of the content, for comparing folds';

CREATE TABLE urban_inventory.city_class (
    city_id INTEGER NOT NULL,
    class TEXT NOT NULL,
    CONSTRAINT city_class_pkey PRIMARY KEY (city_id, class),
    CONSTRAINT city_class_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT city_class_class_fkey FOREIGN KEY(class) REFERENCES urban_inventory.asset_class (name)
);

COMMENT ON TABLE urban_inventory.city_class IS 'the classes that a city counts';

CREATE TABLE urban_inventory.coverage (
    city_id INTEGER NOT NULL,
    area_version_id BIGINT NOT NULL,
    class TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    share DOUBLE PRECISION NOT NULL,
    oldest_look TIMESTAMP WITH TIME ZONE NOT NULL,
    newest_look TIMESTAMP WITH TIME ZONE NOT NULL,
    models TEXT[] NOT NULL,
    CONSTRAINT coverage_pkey PRIMARY KEY (city_id, area_version_id, class, at),
    CONSTRAINT coverage_share_check CHECK (share > 0 and share <= 1),
    CONSTRAINT coverage_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

COMMENT ON TABLE urban_inventory.coverage IS 'share of an area surveyed adequately for a class, in steps (R5, R13)';

COMMENT ON COLUMN urban_inventory.coverage.area_version_id IS '0 the whole city, −rank−1 outside a level';

COMMENT ON COLUMN urban_inventory.coverage.at IS 'from this as-of instant on';

COMMENT ON COLUMN urban_inventory.coverage.models IS 'SHA-256 of the newest looks'' models';

CREATE TABLE urban_inventory.decision (
    city_id INTEGER NOT NULL,
    id BIGINT DEFAULT nextval('urban_inventory.decision_id_seq') NOT NULL,
    public_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    class TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    geom geometry(POINT,4326) NOT NULL,
    x DOUBLE PRECISION NOT NULL,
    y DOUBLE PRECISION NOT NULL,
    gate_m REAL NOT NULL,
    asset TEXT,
    details JSONB DEFAULT '{}'::jsonb NOT NULL,
    author TEXT NOT NULL,
    reason TEXT,
    retracts BIGINT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT decision_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT decision_city_id_public_id_key UNIQUE (city_id, public_id),
    CONSTRAINT decision_kind_check CHECK (kind in ('verify', 'reject', 'move', 'reclassify', 'describe', 'add', 'merge', 'split', 'retract')),
    CONSTRAINT decision_retracts_check CHECK ((kind = 'retract') = (retracts is not null)),
    CONSTRAINT decision_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

COMMENT ON COLUMN urban_inventory.decision.id IS 'the recorded sequence';

COMMENT ON COLUMN urban_inventory.decision.geom IS 'where the decision speaks of (R11)';

COMMENT ON COLUMN urban_inventory.decision.asset IS 'the public id that the person named';

CREATE TABLE urban_inventory.department (
    id INTEGER GENERATED ALWAYS AS IDENTITY,
    city_id INTEGER NOT NULL,
    code TEXT NOT NULL,
    name TEXT NOT NULL,
    CONSTRAINT department_pkey PRIMARY KEY (id),
    CONSTRAINT department_city_id_code_key UNIQUE (city_id, code),
    CONSTRAINT department_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
);

CREATE TABLE urban_inventory.history (
    city_id INTEGER NOT NULL,
    id BIGINT DEFAULT nextval('urban_inventory.history_id_seq') NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    asset_id BIGINT,
    state_id BIGINT NOT NULL,
    change SMALLINT NOT NULL,
    state JSONB NOT NULL,
    cause TEXT NOT NULL,
    cause_id TEXT,
    author TEXT NOT NULL,
    CONSTRAINT history_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT history_change_check CHECK (change in (-1, 1)),
    CONSTRAINT history_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE INDEX history_asset_idx ON urban_inventory.history (asset_id, recorded_at);

COMMENT ON TABLE urban_inventory.history IS 'every change of a state with its cause (R14): summed up to R, what was known at R';

COMMENT ON COLUMN urban_inventory.history.change IS '+1 said from now on, -1 no longer said';

CREATE TABLE urban_inventory.membership (
    city_id INTEGER NOT NULL,
    state_id BIGINT NOT NULL,
    area_version_id BIGINT NOT NULL,
    valid_from TIMESTAMP WITH TIME ZONE NOT NULL,
    valid_to TIMESTAMP WITH TIME ZONE,
    CONSTRAINT membership_pkey PRIMARY KEY (city_id, area_version_id, state_id, valid_from),
    CONSTRAINT membership_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

CREATE INDEX membership_state_idx ON urban_inventory.membership (state_id);

COMMENT ON TABLE urban_inventory.membership IS 'the area version of each level that holds a state''s position, and when (R12)';

COMMENT ON COLUMN urban_inventory.membership.valid_to IS 'null: until now';

CREATE TABLE urban_inventory.model_choice (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    city_id INTEGER NOT NULL,
    class TEXT NOT NULL,
    model TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT model_choice_pkey PRIMARY KEY (id),
    CONSTRAINT model_choice_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT model_choice_class_fkey FOREIGN KEY(class) REFERENCES urban_inventory.asset_class (name)
);

COMMENT ON TABLE urban_inventory.model_choice IS 'which model a city used for a class, newest last (R3); before any choice the taxonomy''s';

CREATE TABLE urban_inventory.scene_log (
    city_id INTEGER NOT NULL,
    id BIGINT DEFAULT nextval('urban_inventory.scene_log_id_seq') NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    details JSONB DEFAULT '{}'::jsonb NOT NULL,
    author TEXT NOT NULL,
    CONSTRAINT scene_log_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT scene_log_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id)
)
 PARTITION BY LIST (city_id);

COMMENT ON TABLE urban_inventory.scene_log IS 'what was said about evidence: stored, withdrawn, restored, redated, located, purged, chosen';

CREATE TABLE urban_inventory.area_version (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    city_id INTEGER NOT NULL,
    level TEXT NOT NULL,
    level_rank SMALLINT NOT NULL,
    code TEXT NOT NULL,
    name TEXT NOT NULL,
    parent_level TEXT,
    parent_code TEXT,
    department_id INTEGER,
    valid DATERANGE NOT NULL,
    geom geometry(MULTIPOLYGON,4326) NOT NULL,
    area_m2 DOUBLE PRECISION NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT area_version_pkey PRIMARY KEY (id),
    CONSTRAINT area_version_valid_check CHECK (not isempty(valid)),
    CONSTRAINT area_version_one_version_a_day EXCLUDE USING gist (city_id WITH =, level WITH =, code WITH =, valid WITH &&),
    CONSTRAINT area_version_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT area_version_department_id_fkey FOREIGN KEY(department_id) REFERENCES urban_inventory.department (id)
);

CREATE INDEX area_version_geom_idx ON urban_inventory.area_version USING gist (geom);

COMMENT ON TABLE urban_inventory.area_version IS 'one version of one area (R12); not partitioned: exclusion constraints cannot be';

COMMENT ON COLUMN urban_inventory.area_version.level_rank IS '0 is the top level';

COMMENT ON COLUMN urban_inventory.area_version.valid IS 'city-local dates; the first has no lower bound';

CREATE TABLE urban_inventory.role_grant (
    id INTEGER GENERATED ALWAYS AS IDENTITY,
    principal_id INTEGER NOT NULL,
    role TEXT NOT NULL,
    city_id INTEGER NOT NULL,
    area_level TEXT,
    area_code TEXT,
    department_id INTEGER,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT role_grant_pkey PRIMARY KEY (id),
    CONSTRAINT role_grant_role_check CHECK (role in ('reader', 'field', 'editor', 'admin')),
    CONSTRAINT role_grant_area_check CHECK ((area_level is null) = (area_code is null)),
    CONSTRAINT role_grant_principal_id_fkey FOREIGN KEY(principal_id) REFERENCES urban_inventory.principal (id),
    CONSTRAINT role_grant_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT role_grant_department_id_fkey FOREIGN KEY(department_id) REFERENCES urban_inventory.department (id)
);

COMMENT ON TABLE urban_inventory.role_grant IS 'scope of a role: city × area × department; null is all';

CREATE TABLE urban_inventory.source (
    id INTEGER GENERATED ALWAYS AS IDENTITY,
    city_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    department_id INTEGER,
    licence TEXT,
    attribution TEXT,
    CONSTRAINT source_pkey PRIMARY KEY (id),
    CONSTRAINT source_city_id_name_key UNIQUE (city_id, name),
    CONSTRAINT source_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT source_department_id_fkey FOREIGN KEY(department_id) REFERENCES urban_inventory.department (id)
);

CREATE TABLE urban_inventory.campaign (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    city_id INTEGER NOT NULL,
    source_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    CONSTRAINT campaign_pkey PRIMARY KEY (id),
    CONSTRAINT campaign_city_id_source_id_name_key UNIQUE (city_id, source_id, name),
    CONSTRAINT campaign_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT campaign_source_id_fkey FOREIGN KEY(source_id) REFERENCES urban_inventory.source (id)
);

COMMENT ON TABLE urban_inventory.campaign IS 'one look at the ground by one source (R4); in effect on its last scene''s date';

COMMENT ON COLUMN urban_inventory.campaign.name IS 'the local date unless named';

CREATE TABLE urban_inventory.scene (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    city_id INTEGER NOT NULL,
    public_id TEXT NOT NULL,
    campaign_id BIGINT NOT NULL,
    source_id INTEGER NOT NULL,
    path TEXT,
    pixel_hash TEXT NOT NULL,
    georeference_hash TEXT NOT NULL,
    taken_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kind TEXT NOT NULL,
    ground_resolution_m DOUBLE PRECISION NOT NULL,
    width_px INTEGER NOT NULL,
    height_px INTEGER NOT NULL,
    footprint geometry(MULTIPOLYGON,4326) NOT NULL,
    licence TEXT,
    attribution TEXT,
    superseded_by BIGINT,
    purged_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT scene_pkey PRIMARY KEY (id),
    CONSTRAINT scene_city_id_public_id_key UNIQUE (city_id, public_id),
    CONSTRAINT scene_kind_check CHECK (kind in ('nadir', 'oblique', 'street', 'fixed')),
    CONSTRAINT scene_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT scene_campaign_id_fkey FOREIGN KEY(campaign_id) REFERENCES urban_inventory.campaign (id),
    CONSTRAINT scene_source_id_fkey FOREIGN KEY(source_id) REFERENCES urban_inventory.source (id),
    CONSTRAINT scene_superseded_by_fkey FOREIGN KEY(superseded_by) REFERENCES urban_inventory.scene (id)
);

CREATE INDEX scene_footprint_idx ON urban_inventory.scene USING gist (footprint);

CREATE UNIQUE INDEX scene_one_in_force_idx ON urban_inventory.scene (city_id, pixel_hash) WHERE superseded_by is null and purged_at is null;

COMMENT ON COLUMN urban_inventory.scene.path IS 'where the file lay when last seen; null once purged';

COMMENT ON COLUMN urban_inventory.scene.footprint IS 'the ground of its valid pixels';

CREATE TABLE urban_inventory.survey (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    city_id INTEGER NOT NULL,
    public_id TEXT NOT NULL,
    scene_id BIGINT NOT NULL,
    model TEXT NOT NULL,
    model_version TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    settings_key TEXT NOT NULL,
    card JSONB NOT NULL,
    classes TEXT[] NOT NULL,
    surveyed geometry(MULTIPOLYGON,4326) NOT NULL,
    windows INTEGER NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    withdrawn_at TIMESTAMP WITH TIME ZONE,
    shift_m DOUBLE PRECISION[],
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT survey_pkey PRIMARY KEY (id),
    CONSTRAINT survey_city_id_public_id_key UNIQUE (city_id, public_id),
    CONSTRAINT survey_scene_id_model_sha256_settings_key_key UNIQUE (scene_id, model_sha256, settings_key),
    CONSTRAINT survey_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT survey_scene_id_fkey FOREIGN KEY(scene_id) REFERENCES urban_inventory.scene (id)
);

CREATE INDEX survey_surveyed_idx ON urban_inventory.survey USING gist (surveyed);

COMMENT ON COLUMN urban_inventory.survey.card IS 'the card as it was: its parameters are constants';

COMMENT ON COLUMN urban_inventory.survey.shift_m IS 'systematic shift removed before matching, (x, y)';

CREATE TABLE urban_inventory.observation (
    city_id INTEGER NOT NULL,
    id BIGINT DEFAULT nextval('urban_inventory.observation_id_seq') NOT NULL,
    survey_id BIGINT NOT NULL,
    class TEXT NOT NULL,
    geom geometry(POINT,4326) NOT NULL,
    x DOUBLE PRECISION NOT NULL,
    y DOUBLE PRECISION NOT NULL,
    error_m REAL NOT NULL,
    width_m REAL NOT NULL,
    height_m REAL NOT NULL,
    score REAL NOT NULL,
    plausible BOOLEAN NOT NULL,
    box_px REAL[] NOT NULL,
    CONSTRAINT observation_pkey PRIMARY KEY (city_id, id),
    CONSTRAINT observation_sizes_check CHECK (error_m > 0 and width_m > 0 and height_m > 0),
    CONSTRAINT observation_score_check CHECK (score between 0 and 1),
    CONSTRAINT observation_city_id_fkey FOREIGN KEY(city_id) REFERENCES urban_inventory.city (id),
    CONSTRAINT observation_survey_id_fkey FOREIGN KEY(survey_id) REFERENCES urban_inventory.survey (id)
)
 PARTITION BY LIST (city_id);

CREATE INDEX observation_geom_idx ON urban_inventory.observation USING gist (geom);

CREATE INDEX observation_survey_idx ON urban_inventory.observation (survey_id, class);

COMMENT ON COLUMN urban_inventory.observation.plausible IS 'size within the class''s range (R6)';

CREATE TABLE urban_inventory.survey_class (
    survey_id BIGINT NOT NULL,
    class TEXT NOT NULL,
    in_force BOOLEAN NOT NULL,
    adequate BOOLEAN NOT NULL,
    CONSTRAINT survey_class_pkey PRIMARY KEY (survey_id, class),
    CONSTRAINT survey_class_survey_id_fkey FOREIGN KEY(survey_id) REFERENCES urban_inventory.survey (id) ON DELETE CASCADE,
    CONSTRAINT survey_class_class_fkey FOREIGN KEY(class) REFERENCES urban_inventory.asset_class (name)
);

COMMENT ON COLUMN urban_inventory.survey_class.in_force IS 'derived (R3)';

COMMENT ON COLUMN urban_inventory.survey_class.adequate IS 'may testify to absence (R5)';
