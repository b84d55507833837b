//! Kinds of credentials that log in by a header of HTTP and by nothing else: in a body they are what somebody tells about
//! somebody.

/// Those of the rules for secrets that are reported by a mark of their own, and travel by a header (`wire` is H or B, and nothing
/// else); and files of them. A test compares this with the rules.
const KINDS: &[&str] = &[
    "adafruit-io-key",
    "airtable-pat",
    "anthropic-key",
    "apify-token",
    "atlassian-token",
    "authress-key",
    "aws-bedrock-key",
    "aws-bedrock-short-key",
    "azure-devops-pat",
    "bitbucket-app-password",
    "bitbucket-server-token",
    "braintree-token",
    "brevo-key",
    "browserbase-key",
    "buildkite-token",
    "cargo-token",
    "cerebras-key",
    "checkly-key",
    "circleci-token",
    "clickup-key",
    "clojars-token",
    "cloudflare-ca-key",
    "coderabbit-key",
    "contentful-pat",
    "context7-key",
    "convex-key",
    "copilot-token",
    "coze-token",
    "crunchy-key",
    "cursor-key",
    "databento-key",
    "databricks-token",
    "dbt-token",
    "dependency-track-key",
    "depot-token",
    "digitalocean-token",
    "docker-hub-token",
    "docker-registry-auth",
    "doppler-token",
    "drone-token",
    "dropbox-token",
    "dynatrace-token",
    "e2b-key",
    "elastic-cloud-key",
    "elevenlabs-key",
    "endorlabs-key",
    "figma-token",
    "firebase-server-key",
    "firecrawl-key",
    "fireworks-key",
    "fleetbase-key",
    "flutterwave-key",
    "flyio-token",
    "frameio-token",
    "friendli-token",
    "github-fine-grained",
    "github-host-token",
    "github-installation",
    "github-oidc-token",
    "github-token",
    "gitlab-token",
    "grafana-api-key",
    "grafana-cloud-token",
    "grafana-service-account",
    "groq-key",
    "harness-token",
    "helicone-key",
    "heroku-key",
    "hex-token",
    "huggingface-token",
    "infisical-token",
    "inngest-key",
    "ionic-token",
    "jfrog-key",
    "jfrog-reference-token",
    "jina-key",
    "k3s-token",
    "kubeconfig",
    "kubernetes-bootstrap-token",
    "langfuse-key",
    "langsmith-key",
    "launchdarkly-key",
    "linear-key",
    "llamacloud-key",
    "mailchimp-key",
    "maxmind-key",
    "neon-key",
    "netlify-token",
    "netrc",
    "newrelic-key",
    "notion-token",
    "npm-token",
    "nuget-key",
    "nvidia-key",
    "nylas-key",
    "onesignal-key",
    "openai-key",
    "openrouter-key",
    "paddle-key",
    "pangea-token",
    "permit-key",
    "perplexity-key",
    "pinecone-key",
    "planetscale-token",
    "polar-token",
    "postman-key",
    "pulumi-token",
    "pypi-token",
    "razorpay-key",
    "readme-key",
    "render-key",
    "replicate-token",
    "rubygems-key",
    "samsara-key",
    "scalingo-token",
    "sendgrid-key",
    "sentry-org-token",
    "sentry-user-token",
    "shopify-token",
    "socket-token",
    "sourcegraph-token",
    "square-access-token",
    "square-token",
    "stackhawk-key",
    "stripe-key",
    "supabase-token",
    "terraform-cloud-token",
    "thunderstore-token",
    "together-key",
    "trigger-dev-key",
    "typeform-token",
    "unkey-root-key",
    "upcloud-token",
    "vault-token",
    "vercel-token",
    "voyage-key",
    "wakatime-key",
    "wandb-local-key",
    "xai-key",
    "xata-key",
    "zuplo-key",
];

/// Kinds that log in by protocols of their own, or stay where they are: in a message of HTTP they are what somebody tells.
/// Those of whole connections and files only: a password alone is typed into forms as well.
const NEVER: &[&str] = &[
    "amqp-url",
    "connection-string",
    "database-url",
    "jenkins-master-key",
    "jenkins-secret",
    "kerberos-ccache",
    "kerberos-keytab",
    "mongodb-keyfile",
    "mongodb-url",
    "mysql-url",
    "openvpn-static-key",
    "postgresql-url",
    "terraform-state-secret",
    "wallet-mnemonic",
];

/// Whether a kind has nothing to do with HTTP.
pub(crate) fn is_never_by_http(kind: &str) -> bool {
    NEVER.binary_search(&kind).is_ok()
}

/// Whether a kind travels by a header alone.
pub(crate) fn is_only_in_headers(kind: &str) -> bool {
    KINDS.binary_search(&kind).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{KINDS, NEVER, is_never_by_http, is_only_in_headers};
    use std::collections::{BTreeMap, BTreeSet};

    /// Files that hold such tokens and have no mark.
    const FILES: [&str; 3] = ["github-host-token", "kubeconfig", "netrc"];

    /// Of these the rules say how they travel to the service they are for, and they are in bodies all the same.
    const IN_BODIES: &[&str] = &[
        // Passwords and secrets of applications are typed into forms, and exchanged for tokens.
        "adobe-oauth-secret",
        "aiven-password",
        "filezilla-password",
        "intra42-secret",
        "jenkins-setup-password",
        "materialize-password",
        "maven-password",
        "nuget-config-password",
        "redis-requirepass",
        "tigris-secret",
        // So are tokens that are renewed, checked or handed on where one logs in.
        "aws-session-token",
        "facebook-token",
        "google-oauth-token",
        "instagram-token",
        "jwt",
        "matrix-token",
        "microsoft-refresh-token",
        "notion-refresh-token",
        "ory-token",
        "salesforce-token",
        "zoho-token",
        // Interfaces take these in their forms or messages as well.
        "cal-key",
        "coralogix-key",
        "deepl-key",
        "mapbox-public-token",
        "mapbox-secret-token",
        "netbird-token",
        "riot-key",
        "runpod-key",
        "segment-token",
        "sentry-dsn",
        "slack-app-token",
        "slack-token",
        "tailscale-key",
        "tavily-key",
        "twitch-stream-key",
        "woocommerce-key",
        // With these requests are signed, and services hand them out.
        "azure-marked-key",
        "azure-signed-key",
    ];

    /// Of each kind in the rules for secrets: whether all rules have it travel by a header alone, and whether one has a mark.
    fn of_the_rules() -> BTreeMap<String, (bool, bool)> {
        let mut kinds = BTreeMap::new();
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../secret/rules");
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let file: toml::Table = text.parse().unwrap();
            for rule in file["rule"].as_array().unwrap() {
                let said = |name: &str| rule.get(name).and_then(toml::Value::as_str);
                let kind = said("kind").or(said("name")).unwrap();
                let wire = said("wire").unwrap_or_default();
                let public = rule.get("public").and_then(toml::Value::as_bool);
                let header = !wire.is_empty()
                    && wire.chars().all(|way| "HB".contains(way))
                    && public != Some(true);
                let confidence = rule.get("confidence").and_then(toml::Value::as_float);
                let mark = rule.get("literals").is_some()
                    && rule.get("regex").is_some()
                    && confidence.is_some_and(|of| of >= 0.9);
                let known = kinds.entry(kind.to_owned()).or_insert((true, false));
                *known = (known.0 && header, known.1 || mark);
            }
        }
        kinds
    }

    /// Whoever adds a rule for a token adds it here, or says why not.
    #[test]
    fn the_kinds_are_those_of_the_rules() {
        let rules = of_the_rules();
        let headers: BTreeSet<&str> = rules
            .iter()
            .filter(|(_, (header, mark))| *header && *mark)
            .map(|(kind, _)| kind.as_str())
            .collect();
        for kind in IN_BODIES {
            assert!(headers.contains(kind), "{kind} need not be named any more");
        }
        for kind in FILES {
            assert!(rules.contains_key(kind), "there is no {kind}");
        }
        let wanted: Vec<&str> = headers
            .into_iter()
            .filter(|kind| !IN_BODIES.contains(kind))
            .chain(FILES)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(KINDS, wanted);
    }

    /// The rules say of each how it travels: by a protocol of its own (P), or not at all (L).
    #[test]
    fn what_is_never_sent_by_http_is_so_in_the_rules() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../secret/rules");
        let mut ways: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let file: toml::Table = text.parse().unwrap();
            for rule in file["rule"].as_array().unwrap() {
                let said = |name: &str| rule.get(name).and_then(toml::Value::as_str);
                let kind = said("kind").or(said("name")).unwrap().to_owned();
                let wire = said("wire").unwrap_or_default().to_owned();
                ways.entry(kind).or_default().insert(wire);
            }
        }
        assert!(NEVER.is_sorted());
        for kind in NEVER {
            let of = ways
                .get(*kind)
                .unwrap_or_else(|| panic!("there is no {kind}"));
            // A broker has an interface for its administrator, which takes another form.
            let stays = |wire: &String| matches!(wire.as_str(), "P" | "L") || *kind == "amqp-url";
            assert!(of.iter().all(stays), "{kind}: {of:?}");
            assert!(is_never_by_http(kind) && !is_only_in_headers(kind));
        }
    }

    #[test]
    fn a_kind_is_looked_up() {
        assert!(is_only_in_headers("terraform-cloud-token"));
        assert!(!is_only_in_headers("slack-token") && !is_only_in_headers(""));
    }
}
