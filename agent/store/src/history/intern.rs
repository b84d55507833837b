//! Numbers for texts, programs and destinations: each is in the file once, and the most recent ones in memory.

use super::ProgramSeen;
use keytrail_findings::Facts;
use keytrail_findings::facts::{DestinationFacts, ProcessFacts};
use rusqlite::{Connection, OptionalExtension as _, Result, params};
use std::collections::HashMap;
use std::hash::Hash;

/// Entries of each kind that are kept in memory. When there are more all are forgotten: they are in the file.
const MOST: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ProgramKey {
    path: String,
    script: String,
    device: u64,
    inode: u64,
}

/// Only what the last committed transaction left in the file: whoever rolls one back has to [`Cache::clear`].
#[derive(Debug, Default)]
pub(crate) struct Cache {
    texts: HashMap<String, i64>,
    programs: HashMap<ProgramKey, i64>,
    destinations: HashMap<DestinationFacts, i64>,
    /// By actor and contexts.
    surroundings: HashMap<(String, String), i64>,
}

impl Cache {
    pub fn clear(&mut self) {
        *self = Cache::default();
    }

    pub fn text(&mut self, db: &Connection, text: &str) -> Result<i64> {
        if text.is_empty() {
            return Ok(0);
        }
        if let Some(id) = self.texts.get(text) {
            return Ok(*id);
        }
        let known = db
            .prepare_cached("SELECT id FROM texts WHERE text = ?1")?
            .query_row([text], |r| r.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                db.prepare_cached("INSERT INTO texts (text) VALUES (?1)")?
                    .execute([text])?;
                db.last_insert_rowid()
            }
        };
        keep(&mut self.texts, text.to_owned(), id);
        Ok(id)
    }

    pub fn destination(&mut self, db: &Connection, d: &DestinationFacts) -> Result<i64> {
        if let Some(id) = self.destinations.get(d) {
            return Ok(*id);
        }
        let known = db
            .prepare_cached(
                "SELECT id FROM destinations WHERE ip = ?1 AND host = ?2 AND port = ?3 AND protocol = ?4",
            )?
            .query_row(params![d.ip, d.host, d.port, d.protocol], |r| r.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                db.prepare_cached(
                    "INSERT INTO destinations (ip, host, port, protocol) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![d.ip, d.host, d.port, d.protocol])?;
                db.last_insert_rowid()
            }
        };
        keep(&mut self.destinations, d.clone(), id);
        Ok(id)
    }

    /// On whose behalf and in what a process runs.
    pub fn surroundings(&mut self, db: &Connection, facts: &Facts) -> Result<i64> {
        let process = facts.process.as_ref();
        let actor = process.map_or_else(String::new, |p| p.actor.clone());
        let key = (actor, facts.surroundings().join(","));
        if let Some(id) = self.surroundings.get(&key) {
            return Ok(*id);
        }
        db.prepare_cached("INSERT OR IGNORE INTO surroundings (actor, contexts) VALUES (?1, ?2)")?
            .execute([&key.0, &key.1])?;
        let id = db
            .prepare_cached("SELECT id FROM surroundings WHERE actor = ?1 AND contexts = ?2")?
            .query_row([&key.0, &key.1], |r| r.get(0))?;
        keep(&mut self.surroundings, key, id);
        Ok(id)
    }

    /// The program as it is now: of several with other contents under the same inode the newest.
    pub fn program(&mut self, db: &Connection, process: &ProcessFacts) -> Result<i64> {
        let key = ProgramKey {
            path: process.executable.clone(),
            script: process.script.clone(),
            device: process.device,
            inode: process.inode,
        };
        if let Some(id) = self.programs.get(&key) {
            return Ok(*id);
        }
        let known = db
            .prepare_cached(
                "SELECT id FROM programs WHERE path = ?1 AND script = ?2 AND device = ?3 AND inode = ?4
                 ORDER BY id DESC LIMIT 1",
            )?
            .query_row(
                params![key.path, key.script, key.device as i64, key.inode as i64],
                |r| r.get(0),
            )
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                // Another script under the same executable: its content is known already.
                db.prepare_cached(
                    "INSERT INTO programs (path, script, device, inode, sha256) VALUES (?1, ?2, ?3, ?4,
                         coalesce((SELECT sha256 FROM programs WHERE path = ?1 AND device = ?3 AND inode = ?4
                             AND sha256 != '' ORDER BY id DESC LIMIT 1), ''))",
                )?
                .execute(params![
                    key.path,
                    key.script,
                    key.device as i64,
                    key.inode as i64
                ])?;
                db.last_insert_rowid()
            }
        };
        keep(&mut self.programs, key, id);
        Ok(id)
    }

    /// The content of an executable is known: rows that waited for it get it; where another content was under the
    /// same inode, uses from now on are of a new program.
    pub fn enrich(&mut self, db: &Connection, seen: &ProgramSeen) -> Result<()> {
        let at = params![
            seen.path,
            seen.device as i64,
            seen.inode as i64,
            seen.sha256
        ];
        db.prepare_cached(
            "UPDATE OR IGNORE programs SET sha256 = ?4 WHERE path = ?1 AND device = ?2 AND inode = ?3 AND sha256 = ''",
        )?
        .execute(at)?;
        let changed = db
            .prepare_cached(
                "INSERT OR IGNORE INTO programs (path, script, device, inode, sha256)
                 SELECT DISTINCT path, script, device, inode, ?4 FROM programs
                 WHERE path = ?1 AND device = ?2 AND inode = ?3 AND sha256 != ?4",
            )?
            .execute(at)?;
        if changed > 0 {
            self.programs
                .retain(|key, _| key.device != seen.device || key.inode != seen.inode);
        }
        Ok(())
    }
}

fn keep<K: Eq + Hash>(map: &mut HashMap<K, i64>, key: K, id: i64) {
    if map.len() >= MOST {
        map.clear();
    }
    map.insert(key, id);
}
