//! The API server: list, then watch, then both again as often as it takes
//! (kubernetes.io/docs/reference/using-api/api-concepts).

use crate::account::Cluster;
use crate::client::{Failure, get};
use crate::known::{Known, MAX_PODS};
use crate::pod::Pod;
use crate::standing::{Source, Standing};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

/// Pods of one page of a list, and its bytes: an object has 1.5 MiB at most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 16 << 20;
/// Pages of a list that are read.
const MAX_PAGES: usize = 100;
/// Bytes of one line of a watch.
const MAX_LINE: usize = 4 << 20;
/// How long the server is asked to watch, and how long it may say nothing meanwhile.
const WATCH_SECONDS: u32 = 240;
const SILENCE: Duration = Duration::from_secs(300);
const PAGE_SILENCE: Duration = Duration::from_secs(30);
/// Before what failed is tried again: twice as long each time.
const FIRST_REST: Duration = Duration::from_millis(500);
const LAST_REST: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    metadata: ListMetadata,
    items: Option<Vec<Pod>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    r#continue: String,
}

/// A line of a watch, but for its object.
#[derive(Debug, Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Debug, Deserialize)]
struct WatchLine {
    object: Pod,
}

/// A line of the type ERROR.
#[derive(Debug, Deserialize)]
struct Failed {
    object: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u32,
}

/// The API server of a cluster, asked for the pods of one node.
pub(crate) struct Server<'a> {
    pub cluster: &'a Cluster,
    pub known: &'a mut Known,
    pub standing: &'a Standing,
}

impl Server<'_> {
    /// Never ends by itself.
    pub async fn run(mut self) -> Infallible {
        let mut rest = FIRST_REST;
        loop {
            let failure = match self.list().await {
                Ok(version) => {
                    self.standing.serves(Source::ApiServer);
                    rest = FIRST_REST;
                    self.watch(version).await
                }
                Err(failure) => failure,
            };
            if let Failure::Other(why) = failure {
                self.standing.refused(Source::ApiServer, &why, false);
            }
            // Also after 410, which a server may answer again and again.
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(LAST_REST);
        }
    }

    fn path(&self, more: &str) -> String {
        format!(
            "/api/v1/pods?fieldSelector=spec.nodeName%3D{}{more}",
            self.cluster.node
        )
    }

    /// All pods as they are; from which version on they are to be watched.
    async fn list(&mut self) -> Result<String, Failure> {
        let mut there = BTreeSet::new();
        let mut next = String::new();
        let (mut unkept, mut pages) = (0, 0);
        loop {
            let page = self.page(&next).await?;
            for names in page.items.into_iter().flatten().filter_map(Pod::names) {
                if there.len() >= MAX_PODS {
                    unkept += 1;
                    continue;
                }
                there.insert(names.uid.clone());
                self.known.put(names).await;
            }
            pages += 1;
            if page.metadata.r#continue.is_empty() || pages > MAX_PAGES {
                self.known.only(&there);
                self.known.no_room(unkept);
                return Ok(page.metadata.resource_version);
            }
            next = page.metadata.r#continue;
        }
    }

    async fn page(&self, from: &str) -> Result<List, Failure> {
        let more = match from {
            "" => format!("&limit={PAGE}"),
            from => format!("&limit={PAGE}&continue={}", encoded(from)),
        };
        let mut answer = get(self.cluster, &self.path(&more)).await?;
        let mut text = Vec::new();
        while let Some(bytes) = answer.next(PAGE_SILENCE).await? {
            if text.len() + bytes.len() > MAX_PAGE {
                return Err(Failure::other("a page of pods is larger than 16 MiB"));
            }
            text.extend_from_slice(&bytes);
        }
        serde_json::from_slice(&text)
            .map_err(|_| Failure::other("the API server does not answer with a list of pods"))
    }

    /// Follows changes until that is not possible any more; why.
    async fn watch(&mut self, mut version: String) -> Failure {
        loop {
            let before = version.clone();
            if let Err(failure) = self.watch_once(&mut version).await {
                return failure;
            }
            // The server ends every watch after a while. One that does so at once is not asked at once again.
            if version == before {
                tokio::time::sleep(FIRST_REST).await;
            }
        }
    }

    async fn watch_once(&mut self, version: &mut String) -> Result<(), Failure> {
        let path = self.path(&format!(
            "&watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            encoded(version)
        ));
        let mut answer = get(self.cluster, &path).await?;
        let mut line = Vec::new();
        while let Some(bytes) = answer.next(SILENCE).await? {
            let mut rest = &bytes[..];
            while let Some(at) = rest.iter().position(|&b| b == b'\n') {
                line.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                self.line(&line, version).await?;
                line.clear();
            }
            if line.len() + rest.len() > MAX_LINE {
                return Err(Failure::other("a change of a pod is larger than 4 MiB"));
            }
            line.extend_from_slice(rest);
        }
        Ok(())
    }

    async fn line(&mut self, line: &[u8], version: &mut String) -> Result<(), Failure> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let bad = |_| Failure::other("the API server does not answer with changes of pods");
        let kind: Kind = serde_json::from_slice(line).map_err(bad)?;
        if kind.r#type == "ERROR" {
            let failed: Failed = serde_json::from_slice(line).map_err(bad)?;
            return Err(match failed.object.code {
                410 => Failure::Gone,
                code => Failure::Other(format!("the API server ends the watch: {code}")),
            });
        }
        let pod = serde_json::from_slice::<WatchLine>(line)
            .map_err(bad)?
            .object;
        let at = pod.metadata.resource_version.clone();
        match kind.r#type.as_str() {
            "ADDED" | "MODIFIED" => {
                if let Some(names) = pod.names() {
                    self.known.change(names).await;
                }
            }
            "DELETED" => {
                if let Some(names) = pod.names() {
                    self.known.remove(&names.uid);
                }
            }
            // Only the version it is at; of newer types nothing is known.
            _ => {}
        }
        if !at.is_empty() {
            *version = at;
        }
        Ok(())
    }
}

/// RFC 3986: everything but what needs no quoting.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}
