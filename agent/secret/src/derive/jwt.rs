//! JSON Web Tokens (RFC 7519): what the cleartext halves say.

use super::{Derived, base64_any};
use serde_json::{Map, Value};

/// Claims of a token whose header is a JSON object with `alg` (or `enc`).
#[derive(Debug)]
pub struct Jwt {
    pub header: Map<String, Value>,
    /// Empty for an encrypted token.
    pub claims: Map<String, Value>,
}

impl Jwt {
    /// `None` when the bytes are not a JWT in compact form.
    pub fn parse(token: &[u8]) -> Option<Jwt> {
        if token.len() > 16 * 1024 {
            return None;
        }
        let mut dots = token.split(|&b| b == b'.');
        let (head, body) = (dots.next()?, dots.next()?);
        dots.next()?;
        let Value::Object(header) = serde_json::from_slice(&base64_any(head)?).ok()? else {
            return None;
        };
        if !header.contains_key("alg") && !header.contains_key("enc") && !header.contains_key("typ")
        {
            return None;
        }
        // A JWE has five parts and no readable claims.
        let claims = base64_any(body).and_then(|b| serde_json::from_slice::<Value>(&b).ok());
        let claims = match claims {
            Some(Value::Object(claims)) => claims,
            _ if dots.next().is_some() || header.contains_key("enc") => Map::new(),
            _ => return None,
        };
        Some(Jwt { header, claims })
    }

    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims
            .get(name)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty() && t.len() <= 256)
    }

    pub fn expires(&self) -> Option<i64> {
        let exp = self.claims.get("exp")?;
        exp.as_i64()
            .or_else(|| exp.as_f64().map(|f| f as i64))
            .filter(|&t| t > 0)
    }

    /// Kubernetes service account `namespace:name`, with the pod it is bound to.
    pub fn kubernetes(&self) -> Option<String> {
        if let Some(bound) = self.claims.get("kubernetes.io").and_then(Value::as_object) {
            let namespace = bound.get("namespace").and_then(Value::as_str)?;
            let name = bound
                .get("serviceaccount")
                .and_then(|s| s.get("name"))
                .and_then(Value::as_str)?;
            let pod = bound
                .get("pod")
                .and_then(|p| p.get("name"))
                .and_then(Value::as_str);
            return Some(clip(&match pod {
                Some(pod) => format!("{namespace}:{name} pod {pod}"),
                None => format!("{namespace}:{name}"),
            }));
        }
        if let Some(name) = self.claim("kubernetes.io/serviceaccount/service-account.name") {
            let namespace = self
                .claim("kubernetes.io/serviceaccount/namespace")
                .unwrap_or_default();
            return Some(clip(&format!("{namespace}:{name} legacy")));
        }
        self.claim("sub")
            .and_then(|s| s.strip_prefix("system:serviceaccount:"))
            .map(clip)
    }

    /// Who the token stands for, and who made it.
    pub fn identifier(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut push = |label: &str, value: Option<&str>| {
            if let Some(value) = value {
                parts.push(if label.is_empty() {
                    value.to_string()
                } else {
                    format!("{label}={value}")
                });
            }
        };
        push(
            "",
            self.claim("sub")
                .or_else(|| self.claim("email"))
                .or_else(|| self.claim("upn"))
                .or_else(|| self.claim("preferred_username")),
        );
        push("iss", self.claim("iss"));
        let aud = match self.claims.get("aud") {
            Some(Value::Array(list)) => list.first().and_then(Value::as_str),
            Some(Value::String(one)) => Some(one.as_str()),
            _ => None,
        };
        push("aud", aud.filter(|a| a.len() <= 128));
        for claim in ["appid", "azp", "client_id", "oid", "tid", "repository"] {
            push(claim, self.claim(claim));
        }
        push(
            "kid",
            self.header
                .get("kid")
                .and_then(Value::as_str)
                .filter(|k| k.len() <= 64),
        );
        clip(&parts.join(" "))
    }

    pub fn derived(&self) -> Derived {
        Derived {
            identifier: self.kubernetes().unwrap_or_else(|| self.identifier()),
            expires: self.expires(),
            public: Vec::new(),
        }
    }

    /// Has a claim by which a server would accept it: issuer, audience, expiry, or an encrypted body.
    pub fn names_someone(&self) -> bool {
        self.claims.is_empty()
            || ["iss", "exp", "aud", "azp", "client_id", "scope", "jti"]
                .iter()
                .any(|c| self.claims.contains_key(*c))
    }

    /// The more exact kind that issuer and claims prove, or `None` for a JWT of unknown sort.
    pub fn kind(&self) -> Option<&'static str> {
        let issuer = self.claim("iss").unwrap_or_default();
        if issuer == "https://token.actions.githubusercontent.com" {
            return Some("github-oidc-token");
        }
        let audience = self
            .claims
            .get("aud")
            .map(Value::to_string)
            .unwrap_or_default();
        if self.kubernetes().is_some() {
            return Some(if audience.contains("sts.amazonaws.com") {
                "eks-irsa-token"
            } else if audience.contains("api://AzureADTokenExchange") {
                "azure-workload-token"
            } else if self.claims.contains_key("exp") {
                "kubernetes-service-account"
            } else {
                "kubernetes-service-account-legacy"
            });
        }
        if issuer.starts_with("https://sts.windows.net/")
            || issuer.starts_with("https://login.microsoftonline.com/")
        {
            return Some("azure-access-token");
        }
        if issuer == "supabase" {
            return Some("supabase-jwt");
        }
        if self
            .claim("sub")
            .is_some_and(|s| s.starts_with("spiffe://"))
        {
            return Some("spiffe-jwt-svid");
        }
        None
    }
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn token(header: &str, claims: &str) -> String {
        format!(
            "{}.{}.c2lnbmF0dXJl",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    #[test]
    fn service_account_tokens_new_and_old() {
        let new = token(
            r#"{"alg":"RS256","kid":"k1"}"#,
            r#"{"aud":["https://kubernetes.default.svc"],"exp":1795289040,"iss":"https://kubernetes.default.svc","kubernetes.io":{"namespace":"prod","pod":{"name":"web-0"},"serviceaccount":{"name":"deployer"}},"sub":"system:serviceaccount:prod:deployer"}"#,
        );
        let jwt = Jwt::parse(new.as_bytes()).unwrap();
        assert_eq!(jwt.derived().identifier, "prod:deployer pod web-0");
        assert_eq!(jwt.derived().expires, Some(1_795_289_040));
        assert_eq!(jwt.kind(), Some("kubernetes-service-account"));
        let old = token(
            r#"{"alg":"RS256","kid":""}"#,
            r#"{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"kube-system","kubernetes.io/serviceaccount/service-account.name":"admin","sub":"system:serviceaccount:kube-system:admin"}"#,
        );
        let jwt = Jwt::parse(old.as_bytes()).unwrap();
        assert_eq!(jwt.kind(), Some("kubernetes-service-account-legacy"));
        assert_eq!(jwt.derived().identifier, "kube-system:admin legacy");
    }

    #[test]
    fn not_every_dotted_text_is_a_token() {
        assert!(Jwt::parse(b"a.b.c").is_none());
        assert!(Jwt::parse(b"eyJhbGciOiJub25lIn0.bm90anNvbg.x").is_none());
        assert!(Jwt::parse(&[b'.'; 20_000]).is_none());
    }
}
