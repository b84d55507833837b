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
"];
