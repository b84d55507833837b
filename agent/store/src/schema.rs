//! Tables of the ledger, by version (`PRAGMA user_version`).

/// Each entry brings the schema from its index to the next version. Never edit one that was released: add one.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE agent (
        id      TEXT NOT NULL,              -- 32 random hex digits
        created INTEGER NOT NULL            -- wall clock, ns
    ) STRICT;
    CREATE TABLE runs (
        epoch           INTEGER PRIMARY KEY,
        boot_id         TEXT NOT NULL,
        started_wall_ns INTEGER NOT NULL,
        alive_wall_ns   INTEGER NOT NULL,
        clean           INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE credentials (
        fingerprint TEXT PRIMARY KEY,
        kind        TEXT NOT NULL,
        identifier  TEXT NOT NULL,
        confidence  REAL NOT NULL,
        privilege   INTEGER NOT NULL,
        expires     INTEGER,                -- seconds since the epoch
        first_seen  INTEGER NOT NULL,       -- wall clock, ns
        last_seen   INTEGER NOT NULL,
        reads       INTEGER NOT NULL DEFAULT 0,
        exposures   INTEGER NOT NULL DEFAULT 0,
        sends       INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX credentials_last_seen ON credentials (last_seen);
    CREATE TABLE events (
        row         INTEGER PRIMARY KEY,    -- in order of arrival
        epoch       INTEGER NOT NULL,
        sequence    INTEGER NOT NULL,
        time_ns     INTEGER NOT NULL,
        kind        TEXT NOT NULL,
        fingerprint TEXT,
        pid         INTEGER,
        body        BLOB NOT NULL           -- keytrail.v1.Event
    ) STRICT;
    CREATE INDEX events_time ON events (time_ns);
    CREATE INDEX events_fingerprint ON events (fingerprint) WHERE fingerprint IS NOT NULL;
", "
    -- Credentials get a number: uses name them a million times.
    CREATE TABLE known (
        id          INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL UNIQUE,
        kind        TEXT NOT NULL,
        identifier  TEXT NOT NULL,
        confidence  REAL NOT NULL,
        privilege   INTEGER NOT NULL,
        expires     INTEGER,                -- seconds since the epoch
        first_seen  INTEGER NOT NULL,       -- wall clock, ns
        last_seen   INTEGER NOT NULL,
        reads       INTEGER NOT NULL DEFAULT 0,
        exposures   INTEGER NOT NULL DEFAULT 0,
        sends       INTEGER NOT NULL DEFAULT 0,
        created     INTEGER,                -- when it was made, if the agent saw that
        rotated     INTEGER,                -- when it took the place of `previous`
        previous    TEXT,                   -- fingerprint
        last_used   INTEGER,                -- read, held, or seen in a payload
        last_sent   INTEGER,                -- seen in a payload
        weight      INTEGER NOT NULL GENERATED ALWAYS AS (iif(privilege = 0, 5, privilege)) VIRTUAL
    ) STRICT;
    INSERT INTO known (fingerprint, kind, identifier, confidence, privilege, expires, first_seen, last_seen, reads,
        exposures, sends)
        SELECT fingerprint, kind, identifier, confidence, privilege, expires, first_seen, last_seen, reads, exposures,
            sends FROM credentials;
    DROP TABLE credentials;
    ALTER TABLE known RENAME TO credentials;
    CREATE INDEX credentials_last_seen ON credentials (last_seen);
    CREATE INDEX credentials_order ON credentials (weight, last_seen DESC, id);
    CREATE INDEX credentials_identifier ON credentials (identifier) WHERE identifier != '';
    CREATE INDEX events_credential_time ON events (fingerprint, time_ns) WHERE fingerprint IS NOT NULL;
    DROP INDEX events_fingerprint;
    CREATE UNIQUE INDEX events_id ON events (epoch, sequence);
    -- Events that are not there any more: how far, by number.
    ALTER TABLE runs ADD COLUMN last_sequence INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE marks (                    -- horizons and the like
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    -- What was there before uses were summed up is not known.
    INSERT INTO marks (name, value)
        SELECT 'uses_since', max(alive_wall_ns) FROM runs HAVING count(*) > 0;
    CREATE TABLE texts (
        id   INTEGER PRIMARY KEY,
        text TEXT NOT NULL UNIQUE
    ) STRICT;
    INSERT INTO texts (id, text) VALUES (0, '');
    CREATE TABLE programs (
        id     INTEGER PRIMARY KEY,
        path   TEXT NOT NULL,
        script TEXT NOT NULL,
        device INTEGER NOT NULL,
        inode  INTEGER NOT NULL,
        sha256 TEXT NOT NULL DEFAULT '',    -- empty until it is known
        UNIQUE (path, script, device, inode, sha256)
    ) STRICT;
    CREATE TABLE destinations (
        id       INTEGER PRIMARY KEY,
        host     TEXT NOT NULL,             -- names, separated by commas
        ip       TEXT NOT NULL,
        port     INTEGER NOT NULL,
        protocol TEXT NOT NULL,
        UNIQUE (ip, host, port, protocol)
    ) STRICT;
    INSERT INTO destinations (id, host, ip, port, protocol) VALUES (0, '', '', 0, '');
    CREATE TABLE uses (
        id          INTEGER PRIMARY KEY,
        credential  INTEGER NOT NULL,
        hour        INTEGER NOT NULL,       -- since the epoch
        act         INTEGER NOT NULL,       -- UseAct
        grade       INTEGER NOT NULL,
        channel     INTEGER NOT NULL,
        program     INTEGER NOT NULL,
        workload    INTEGER NOT NULL,       -- texts
        source      INTEGER NOT NULL,       -- texts
        destination INTEGER NOT NULL,
        request     INTEGER NOT NULL,       -- texts
        first       INTEGER NOT NULL,       -- wall clock, ns
        last        INTEGER NOT NULL,
        count       INTEGER NOT NULL,
        bytes       INTEGER NOT NULL,
        UNIQUE (credential, hour, act, grade, channel, program, workload, source, destination, request)
    ) STRICT;
    CREATE INDEX uses_hour ON uses (hour);
    CREATE INDEX uses_program ON uses (program, hour);
    CREATE INDEX uses_destination ON uses (destination, hour);
    -- What lists of credentials count; kept current by whoever writes uses.
    CREATE TABLE consumers (
        credential INTEGER NOT NULL,
        program    INTEGER NOT NULL,
        PRIMARY KEY (credential, program)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX consumers_program ON consumers (program);
    CREATE TABLE reached (
        credential  INTEGER NOT NULL,
        destination INTEGER NOT NULL,
        PRIMARY KEY (credential, destination)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE places (
        credential INTEGER NOT NULL,
        place      INTEGER NOT NULL,        -- texts: file:PATH, env:NAME
        owner_uid  INTEGER NOT NULL,
        owner_gid  INTEGER NOT NULL,
        mode       TEXT NOT NULL,
        first_seen INTEGER NOT NULL,
        last_seen  INTEGER NOT NULL,
        PRIMARY KEY (credential, place)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX places_place ON places (place);
    CREATE TABLE gaps (
        id         INTEGER PRIMARY KEY,
        epoch      INTEGER NOT NULL,
        reason     TEXT NOT NULL,
        signal     TEXT NOT NULL,
        process    TEXT NOT NULL,           -- process key, or empty
        executable TEXT NOT NULL,
        detail     TEXT NOT NULL,
        remedy     TEXT NOT NULL,
        from_ns    INTEGER NOT NULL,        -- wall clock
        to_ns      INTEGER NOT NULL,
        count      INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX gaps_to ON gaps (to_ns);
    CREATE INDEX gaps_same ON gaps (epoch, reason, signal, process, to_ns);
    CREATE TABLE findings (
        id          INTEGER PRIMARY KEY,
        rule        TEXT NOT NULL,
        severity    TEXT NOT NULL,
        title       TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        subject     TEXT NOT NULL,          -- what makes it the same finding again
        seen        TEXT NOT NULL,
        expected    TEXT NOT NULL,
        remedy      TEXT NOT NULL,
        techniques  TEXT NOT NULL,          -- separated by blanks
        first       INTEGER NOT NULL,
        last        INTEGER NOT NULL,
        count       INTEGER NOT NULL,
        epoch       INTEGER NOT NULL,       -- of its first event
        sequence    INTEGER NOT NULL,
        UNIQUE (rule, fingerprint, subject)
    ) STRICT;
    CREATE INDEX findings_last ON findings (last);
    CREATE INDEX findings_fingerprint ON findings (fingerprint);
    CREATE TABLE decoys (
        fingerprint TEXT PRIMARY KEY,
        kind        TEXT NOT NULL,
        path        TEXT NOT NULL,
        planted     INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE baselines (
        fingerprint TEXT PRIMARY KEY,
        body        TEXT NOT NULL           -- JSON
    ) STRICT, WITHOUT ROWID;
", "
    -- On whose behalf and in what a process runs: as many as those words can be put together.
    CREATE TABLE surroundings (
        id       INTEGER PRIMARY KEY,
        actor    TEXT NOT NULL,
        contexts TEXT NOT NULL,             -- package_install:npm, the innermost first, separated by commas
        UNIQUE (actor, contexts)
    ) STRICT;
    INSERT INTO surroundings (id, actor, contexts) VALUES (0, '', '');
    ALTER TABLE findings ADD COLUMN surroundings INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE uses_by (
        id           INTEGER PRIMARY KEY,
        credential   INTEGER NOT NULL,
        hour         INTEGER NOT NULL,      -- since the epoch
        act          INTEGER NOT NULL,      -- UseAct
        grade        INTEGER NOT NULL,
        channel      INTEGER NOT NULL,
        program      INTEGER NOT NULL,
        workload     INTEGER NOT NULL,      -- texts
        source       INTEGER NOT NULL,      -- texts
        destination  INTEGER NOT NULL,
        request      INTEGER NOT NULL,      -- texts
        surroundings INTEGER NOT NULL DEFAULT 0,
        first        INTEGER NOT NULL,      -- wall clock, ns
        last         INTEGER NOT NULL,
        count        INTEGER NOT NULL,
        bytes        INTEGER NOT NULL,
        UNIQUE (credential, hour, act, grade, channel, program, workload, source, destination, request, surroundings)
    ) STRICT;
    INSERT INTO uses_by (id, credential, hour, act, grade, channel, program, workload, source, destination, request,
        first, last, count, bytes)
        SELECT id, credential, hour, act, grade, channel, program, workload, source, destination, request, first, last,
            count, bytes FROM uses;
    DROP TABLE uses;
    ALTER TABLE uses_by RENAME TO uses;
    CREATE INDEX uses_hour ON uses (hour);
    CREATE INDEX uses_program ON uses (program, hour);
    CREATE INDEX uses_destination ON uses (destination, hour);
", "
    -- What became of a credential's files is asked for beside any number of its uses.
    CREATE INDEX events_changes ON events (fingerprint, time_ns)
        WHERE kind IN ('credential_created', 'credential_file_changed');
    CREATE INDEX credentials_previous ON credentials (previous) WHERE previous IS NOT NULL;
", "
    -- What is usual for the credential used longest ago goes first. What was kept without a bound is learned anew.
    DELETE FROM baselines WHERE length(body) > 262144;
    ALTER TABLE baselines ADD COLUMN used INTEGER NOT NULL DEFAULT 0;   -- wall clock, ns
    UPDATE baselines SET used = coalesce((SELECT c.last_seen FROM credentials c
        WHERE c.fingerprint = baselines.fingerprint), 0);
    CREATE INDEX baselines_used ON baselines (used);
", "
    -- Findings that report one act have the same number here, in one epoch.
    ALTER TABLE findings ADD COLUMN act INTEGER NOT NULL DEFAULT 0;
"];
