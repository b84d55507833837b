//! JSON objects that programs keep their credentials in.

use super::{Context, short};
use crate::api::Origin;
use crate::checks::user_is_secret;
use crate::derive::{base64_any, date, jwt};
use crate::scan::name;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn expiry(object: &Object, keys: &[&str]) -> Option<i64> {
    keys.iter().find_map(|key| match object.get(*key)? {
        Value::String(text) => date::epoch(text),
        Value::Number(n) => date::number(n.as_i64()?),
        _ => None,
    })
}

/// Recognises one object by its fields.
pub fn inspect(context: &mut Context<'_, '_>, key: &str, object: &Object) {
    google(context, object);
    amazon(context, object);
    azure(context, key, object);
    docker(context, key, object);
    assistants(context, key, object);
    terraform(context, key, object);
    composer(context, key, object);
    if context.file_name() == "kaggle.json" {
        context.emit(
            "kaggle-config",
            text(object, "key").as_bytes(),
            text(object, "username").to_string(),
        );
    }
    if context.file_name() == ".credentials_rsaparams" {
        // Private exponent and primes of the key a self-hosted runner signs with.
        context.emit(
            "github-runner-key",
            text(object, "d").as_bytes(),
            String::new(),
        );
    }
    if text(object, "kind") == "Secret" {
        kubernetes_secret(context, object);
    }
}

fn google(context: &mut Context<'_, '_>, object: &Object) {
    match text(object, "type") {
        "service_account" => {
            let (email, key_id) = (text(object, "client_email"), text(object, "private_key_id"));
            let mut identifier = email.to_string();
            if !key_id.is_empty() {
                identifier.push_str(&format!(" key {key_id}"));
            }
            if let Some(raw) = context.emit_pem(
                "gcp-service-account",
                text(object, "private_key").as_bytes(),
                identifier,
            ) {
                raw.public = [email, key_id]
                    .iter()
                    .filter(|p| p.len() >= 8)
                    .map(|p| p.to_string())
                    .collect();
            }
        }
        "authorized_user" => {
            let client = text(object, "client_id");
            let account = text(object, "account");
            let identifier = if account.is_empty() {
                client.to_string()
            } else {
                format!("{account} {client}")
            };
            if let Some(raw) = context.emit_parts(
                "gcp-user-credentials",
                &[
                    ("refresh_token", text(object, "refresh_token")),
                    ("client_secret", text(object, "client_secret")),
                ],
                identifier,
            ) {
                // Google's refresh tokens are long; test data is not.
                if text(object, "refresh_token").len() < 40 {
                    raw.confidence = raw.confidence.min(0.5);
                }
                raw.public = [client]
                    .iter()
                    .filter(|p| p.len() >= 8)
                    .map(|p| p.to_string())
                    .collect();
            }
        }
        "external_account" => external(context, object),
        _ => {}
    }
    // OAuth client files: {"installed": {"client_id", "client_secret"}}
    let (client, secret) = (text(object, "client_id"), text(object, "client_secret"));
    if client.ends_with(".apps.googleusercontent.com") && text(object, "type").is_empty() {
        context.emit(
            "google-oauth-client-secret",
            secret.as_bytes(),
            client.to_string(),
        );
    }
}

/// Workload identity federation: the file names an identity; a secret is in it only when the token for the token's source is.
fn external(context: &mut Context<'_, '_>, object: &Object) {
    let audience = text(object, "audience");
    if audience.len() < 8 {
        return;
    }
    // .../serviceAccounts/NAME@PROJECT.iam.gserviceaccount.com:generateAccessToken
    let account = text(object, "service_account_impersonation_url")
        .rsplit('/')
        .next()
        .and_then(|last| last.split(':').next())
        .unwrap_or_default();
    let identifier = format!("{audience} {account}").trim().to_string();
    let header = object
        .get("credential_source")
        .and_then(|source| source.get("headers"))
        .and_then(|headers| headers.get("Authorization"))
        .and_then(|value| value.as_str())
        .unwrap_or_default();
    let token = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or(header, |(_, token)| token);
    let raw = if token.len() >= 16 {
        context.emit("gcp-workload-identity", token.as_bytes(), identifier)
    } else {
        let mut raw = context.emit("gcp-workload-identity", audience.as_bytes(), identifier);
        // A name, no secret.
        if let Some(raw) = &mut raw {
            raw.parts.clear();
        }
        raw
    };
    if let Some(raw) = raw {
        raw.public = vec![audience.to_string()];
    }
}

fn amazon(context: &mut Context<'_, '_>, object: &Object) {
    let pick = |names: [&str; 2]| {
        names
            .iter()
            .map(|n| text(object, n))
            .find(|v| !v.is_empty())
            .unwrap_or_default()
    };
    let id = pick(["AccessKeyId", "accessKeyId"]);
    let secret = pick(["SecretAccessKey", "secretAccessKey"]);
    if id.len() >= 16 && secret.len() >= 16 {
        let session = ["SessionToken", "sessionToken", "Token"]
            .iter()
            .map(|n| text(object, n))
            .find(|v| !v.is_empty())
            .unwrap_or_default();
        let rule = if session.is_empty() {
            "aws-access-key"
        } else {
            "aws-session"
        };
        let derived = crate::derive::aws::key_id(id);
        let expires = expiry(object, &["Expiration", "expiration"]);
        if let Some(raw) = context.emit_parts(
            rule,
            &[("secret_access_key", secret), ("session_token", session)],
            derived.identifier,
        ) {
            raw.public = derived.public;
            raw.expires = expires;
        }
    }
    let token = text(object, "accessToken");
    let start = text(object, "startUrl");
    if !token.is_empty() && !start.is_empty() {
        let expires = expiry(object, &["expiresAt"]);
        if let Some(raw) = context.emit_parts(
            "aws-sso-token",
            &[
                ("access_token", token),
                ("refresh_token", text(object, "refreshToken")),
            ],
            start.to_string(),
        ) {
            raw.expires = expires;
        }
    }
}

fn azure(context: &mut Context<'_, '_>, key: &str, object: &Object) {
    let secret = text(object, "secret");
    if !secret.is_empty() && !text(object, "home_account_id").is_empty() {
        let kind = text(object, "credential_type");
        let identifier = [
            ("oid", text(object, "home_account_id")),
            ("tid", text(object, "realm")),
            ("appid", text(object, "client_id")),
        ]
        .iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(n, v)| format!("{n}={v}"))
        .collect::<Vec<_>>()
        .join(" ");
        let expires = expiry(object, &["expires_on"])
            .or_else(|| jwt::Jwt::parse(secret.as_bytes()).and_then(|j| j.expires()));
        if kind != "IdToken"
            && let Some(raw) = context.emit("azure-msal-token", secret.as_bytes(), identifier)
        {
            raw.expires = expires;
        }
    }
    // accessTokens.json of old command-line clients.
    if object.contains_key("_clientId") && object.contains_key("accessToken") {
        let expires = expiry(object, &["expiresOn"]);
        let identifier = format!(
            "{} appid={}",
            text(object, "userId"),
            text(object, "_clientId")
        );
        if let Some(raw) = context.emit_parts(
            "azure-msal-token",
            &[
                ("access_token", text(object, "accessToken")),
                ("refresh_token", text(object, "refreshToken")),
            ],
            identifier.trim().to_string(),
        ) {
            raw.expires = expires;
        }
    }
    // service_principal_entries.json, `az ad sp create-for-rbac` and SDK auth files.
    let field = |names: &[&str]| {
        names
            .iter()
            .map(|n| text(object, n))
            .find(|v| !v.is_empty())
            .unwrap_or_default()
            .to_string()
    };
    let secret = field(&[
        "client_secret",
        "clientSecret",
        "servicePrincipalKey",
        "password",
    ]);
    let client = field(&["client_id", "clientId", "appId", "servicePrincipalId"]);
    let tenant = field(&["tenant", "tenantId", "servicePrincipalTenant", "tenant_id"]);
    if !secret.is_empty() && !client.is_empty() && !tenant.is_empty() && key != "auths" {
        let public = vec![client.clone()];
        if let Some(raw) = context.emit(
            "azure-client-secret",
            secret.as_bytes(),
            format!("{client} tenant {tenant}"),
        ) {
            raw.public = public;
        }
    }
}

fn docker(context: &mut Context<'_, '_>, key: &str, object: &Object) {
    // In config.json the hosts stand under `auths`; in the older .dockercfg at the top.
    let hosts = if key == "auths" || (key.is_empty() && context.file_name() == ".dockercfg") {
        Some(object)
    } else {
        None
    };
    for (host, entry) in hosts.into_iter().flatten() {
        let Some(entry) = entry.as_object() else {
            continue;
        };
        let auth = text(entry, "auth");
        if let Some(decoded) = base64_any(auth.as_bytes()).filter(|_| !auth.is_empty()) {
            let (user, password) = match decoded.iter().position(|b| *b == b':') {
                Some(colon) => (&decoded[..colon], &decoded[colon + 1..]),
                None => (&b""[..], decoded.as_slice()),
            };
            let password = password.strip_suffix(b"\0").unwrap_or(password);
            let (user, password) = if user_is_secret(user, password) {
                (&b""[..], user)
            } else {
                (user, password)
            };
            let user = crate::scan::text::clean(user);
            let span = context.locate(auth.as_bytes());
            context.emit_at(
                "docker-registry-auth",
                password,
                span,
                format!("{host} {user}").trim().to_string(),
            );
        }
        for field in ["identitytoken", "registrytoken", "password"] {
            context.emit(
                "docker-registry-auth",
                text(entry, field).as_bytes(),
                format!("{host} {}", text(entry, "username"))
                    .trim()
                    .to_string(),
            );
        }
    }
}

fn assistants(context: &mut Context<'_, '_>, key: &str, object: &Object) {
    if key == "claudeAiOauth" {
        let expires = expiry(object, &["expiresAt"]);
        if let Some(raw) = context.emit_parts(
            "anthropic-oauth",
            &[
                ("access_token", text(object, "accessToken")),
                ("refresh_token", text(object, "refreshToken")),
            ],
            text(object, "subscriptionType").to_string(),
        ) {
            raw.expires = expires;
        }
    }
    if key == "tokens"
        && object.contains_key("refresh_token")
        && (object.contains_key("account_id") || object.contains_key("id_token"))
    {
        let access = text(object, "access_token");
        let claims = jwt::Jwt::parse(text(object, "id_token").as_bytes());
        let email = claims
            .as_ref()
            .and_then(|c| c.claim("email"))
            .unwrap_or_default()
            .to_string();
        let expires = jwt::Jwt::parse(access.as_bytes()).and_then(|j| j.expires());
        let identifier = format!("{email} {}", text(object, "account_id"));
        if let Some(raw) = context.emit_parts(
            "codex-oauth",
            &[
                ("access_token", access),
                ("refresh_token", text(object, "refresh_token")),
            ],
            identifier.trim().to_string(),
        ) {
            raw.expires = expires;
        }
    }
    if matches!(
        key,
        "mcpServers" | "servers" | "context_servers" | "mcp_servers"
    ) {
        for (server, entry) in object {
            let server = short(server);
            flags(context, server, entry);
            for block in ["env", "headers", "environment", "http_headers"] {
                let Some(block) = entry.get(block).and_then(Value::as_object) else {
                    continue;
                };
                for (name, value) in block {
                    if let Some(value) = value.as_str() {
                        agent_variable(context, server, name, value);
                    }
                }
            }
        }
    }
}

/// `"args": ["--api-key", "value"]`: flags whose names are those of secrets.
fn flags(context: &mut Context<'_, '_>, server: &str, entry: &Value) {
    let args = entry.get("args").and_then(Value::as_array);
    let args: Vec<&str> = args
        .into_iter()
        .flatten()
        .map(|a| a.as_str().unwrap_or_default())
        .collect();
    for pair in args.windows(2) {
        if let Some(name) = pair[0].strip_prefix("--")
            && !pair[1].starts_with('-')
            && name::classify(name.as_bytes()).is_some()
        {
            agent_variable(context, server, name, pair[1]);
        }
    }
}

/// A variable or header that an agent's configuration gives to a tool server.
pub fn agent_variable(context: &mut Context<'_, '_>, server: &str, name: &str, value: &str) {
    let bare = value
        .strip_prefix("Bearer ")
        .or_else(|| value.strip_prefix("token "))
        .unwrap_or(value);
    let found = context
        .classifier
        .classify_value(bare.as_bytes(), Origin::Env { name });
    let Some(best) = found
        .into_iter()
        .filter(|f| !f.parts.is_empty())
        .max_by(|a, b| a.confidence.total_cmp(&b.confidence))
    else {
        if name.eq_ignore_ascii_case("authorization") {
            context.emit(
                "mcp-server-secret",
                bare.as_bytes(),
                format!("{server} {name}"),
            );
        }
        return;
    };
    // A token of a known kind keeps its kind; the server is added to what it says of itself.
    let label = format!("{server} {name}");
    if best.specific() && best.confidence >= 0.5 {
        let identifier = if best.identifier.is_empty() {
            label
        } else {
            format!("{} ({label})", best.identifier)
        };
        let rule = best.rule.clone();
        if let Some(raw) = context.emit(&rule, &best.parts[0].value, identifier) {
            raw.confidence = best.confidence;
            raw.expires = best.expires;
            raw.public = best.public;
        }
    } else {
        context.emit("mcp-server-secret", &best.parts[0].value, label);
    }
}

fn terraform(context: &mut Context<'_, '_>, key: &str, object: &Object) {
    if key == "credentials" {
        for (host, entry) in object {
            if let Some(entry) = entry.as_object()
                && host.contains('.')
            {
                context.emit(
                    "terraform-cloud-token",
                    text(entry, "token").as_bytes(),
                    host.clone(),
                );
            }
        }
    }
    if object.contains_key("terraform_version") && object.contains_key("resources") {
        let resources = object.get("resources").and_then(Value::as_array);
        for resource in resources.into_iter().flatten().filter_map(Value::as_object) {
            let address = format!(
                "{}.{}",
                short(text(resource, "type")),
                short(text(resource, "name"))
            );
            for instance in resource
                .get("instances")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let Some(attributes) = instance.get("attributes").and_then(Value::as_object) else {
                    continue;
                };
                for (name, value) in attributes {
                    state_attribute(context, &address, name, value);
                }
            }
        }
        for (name, output) in object
            .get("outputs")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let sensitive = output
                .get("sensitive")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            if let Some(value) = output.get("value").and_then(Value::as_str)
                && sensitive
            {
                state_secret(context, name, value, format!("output.{}", short(name)));
            }
        }
    }
}

fn state_attribute(context: &mut Context<'_, '_>, address: &str, attribute: &str, value: &Value) {
    let Some(value) = value.as_str().filter(|v| v.len() >= 4) else {
        return;
    };
    let secret = matches!(attribute, "secret" | "secret_string" | "private_key_pem" | "private_key_openssh" | "private_key" | "result" if address.starts_with("random_password") || attribute != "result");
    if !secret && name::classify(attribute.as_bytes()).is_none() {
        return;
    }
    let identifier = format!("{address}.{}", short(attribute));
    if value.contains("-----BEGIN") {
        context.emit_pem("terraform-state-secret", value.as_bytes(), identifier);
    } else if secret
        || crate::scan::value::judge(
            name::NameClass::Password,
            attribute.as_bytes(),
            value.as_bytes(),
            crate::scan::value::Written::Quoted,
        )
        .is_some()
    {
        state_secret(context, attribute, value, identifier);
    } else {
        context.emit_known(attribute, value, &identifier);
    }
}

/// A value that a state calls secret: what it is by its own form, else a secret of the state.
fn state_secret(context: &mut Context<'_, '_>, name: &str, value: &str, address: String) {
    if !context.emit_known(name, value, &address) {
        context.emit("terraform-state-secret", value.as_bytes(), address);
    }
}

fn composer(context: &mut Context<'_, '_>, key: &str, object: &Object) {
    if !matches!(
        key,
        "http-basic" | "bearer" | "gitlab-token" | "github-oauth" | "gitlab-oauth"
    ) {
        return;
    }
    // `"bearer": {"type": "http"}` describes an interface.
    for (host, entry) in object.iter().filter(|(host, _)| host.contains('.')) {
        match entry {
            Value::String(token) => {
                context.emit("composer-auth", token.as_bytes(), host.clone());
            }
            Value::Object(entry) => {
                context.emit(
                    "composer-auth",
                    text(entry, "password").as_bytes(),
                    format!("{host} {}", text(entry, "username"))
                        .trim()
                        .to_string(),
                );
            }
            _ => {}
        }
    }
}

/// A Secret manifest: `data` is base64, `stringData` is clear.
pub fn kubernetes_secret(context: &mut Context<'_, '_>, object: &Object) {
    let metadata = object.get("metadata").and_then(Value::as_object);
    let field = |name: &str| {
        metadata
            .map(|m| short(text(m, name)))
            .unwrap_or_default()
            .to_string()
    };
    let (namespace, name) = (field("namespace"), field("name"));
    for (block, encoded) in [("data", true), ("stringData", false)] {
        for (key, value) in object
            .get(block)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let Some(value) = value.as_str() else {
                continue;
            };
            let owner = if namespace.is_empty() {
                format!("{name}/{key}")
            } else {
                format!("{namespace}/{name}/{key}")
            };
            let span = context.locate(value.as_bytes());
            let decoded = if encoded {
                base64_any(value.as_bytes())
            } else {
                Some(zeroize::Zeroizing::new(value.as_bytes().to_vec()))
            };
            let Some(decoded) = decoded else { continue };
            let plain = decoded.trim_ascii();
            // Certificates, user names and addresses live in Secrets too.
            if plain.starts_with(b"-----BEGIN CERT")
                || matches!(
                    key.as_str(),
                    "username"
                        | "user"
                        | "ca.crt"
                        | "tls.crt"
                        | "namespace"
                        | "host"
                        | "port"
                        | "database"
                        | "dbname"
                )
            {
                continue;
            }
            let known = context
                .classifier
                .classify_value(plain, Origin::Env { name: key });
            match known
                .into_iter()
                .filter(|f| !f.parts.is_empty() && f.specific() && f.confidence >= 0.5)
                .max_by(|a, b| a.confidence.total_cmp(&b.confidence))
            {
                Some(best) => {
                    let rule = best.rule.clone();
                    let identifier = if best.identifier.is_empty() {
                        owner
                    } else {
                        format!("{} ({owner})", best.identifier)
                    };
                    if let Some(raw) =
                        context.emit_at(&rule, &best.parts[0].value, span, identifier)
                    {
                        raw.confidence = best.confidence;
                        raw.expires = best.expires;
                    }
                }
                None => {
                    context.emit_at("kubernetes-secret", plain, span, owner);
                }
            }
        }
    }
}
