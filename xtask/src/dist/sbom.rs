//! The list of what the program is linked from, as a document that scanners read.
//!
//! https://cyclonedx.org/docs/1.6/json/

use super::{
    archive::sha256,
    parts::{Part, reference},
    release::{PROGRAM, Release, SUMMARY, rfc3339},
};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The document.
pub fn build(release: &Release) -> Result<Vec<u8>> {
    let main = reference("keytrail", &release.version, true);
    let components: Vec<Value> = release
        .parts
        .iter()
        .filter(|part| part.reference() != main)
        .map(component)
        .collect();
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for part in &release.parts {
        needs
            .entry(part.reference())
            .or_default()
            .extend(part.needs.iter().cloned());
    }
    // The kernel side is embedded, and the C library linked, which cargo does not know.
    for part in &release.parts {
        if part.name == "glibc" || part.name == "keytrail-ebpf" {
            needs
                .entry(main.clone())
                .or_default()
                .insert(part.reference());
        }
    }
    let dependencies: Vec<Value> = needs
        .iter()
        .map(|(part, needs)| json!({ "ref": part, "dependsOn": needs }))
        .collect();
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(release.epoch)?,
            "component": {
                "type": "application",
                "bom-ref": main,
                "name": "keytrail",
                "version": release.version,
                "description": SUMMARY,
                "hashes": [{ "alg": "SHA-256", "content": sha256(&release.program) }],
                "licenses": [{ "expression": "Apache-2.0" }],
                "properties": [
                    { "name": "keytrail:path", "value": format!("/{PROGRAM}") },
                    { "name": "keytrail:commit", "value": release.commit },
                ],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    Ok(text)
}

fn component(part: &Part) -> Value {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), json!("library"));
    fields.insert("bom-ref".to_owned(), json!(part.reference()));
    fields.insert("name".to_owned(), json!(part.name));
    fields.insert("version".to_owned(), json!(part.version));
    // Cargo's old way of writing a choice is none of SPDX.
    let licence = part.licence.replace('/', " OR ");
    fields.insert("licenses".to_owned(), json!([{ "expression": licence }]));
    if !part.own {
        fields.insert("purl".to_owned(), json!(part.reference()));
    }
    if !part.sha256.is_empty() {
        let hash = json!([{ "alg": "SHA-256", "content": part.sha256 }]);
        fields.insert("hashes".to_owned(), hash);
    }
    Value::Object(fields)
}
