//! No text costs more than its length: each format is fed its own worst, under its own path, in growing sizes.

use crate::rules::template::Random;
use crate::{Classifier, Origin};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

const MIB: usize = 1 << 20;

/// Letters and digits that differ from one number to the next.
fn fresh(i: usize, n: usize) -> String {
    const SET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut random = Random::new(i as u64 + 1);
    (0..n)
        .map(|_| SET[(random.word() % 62) as usize] as char)
        .collect()
}

fn hex(i: usize, n: usize) -> String {
    let mut random = Random::new(i as u64 + 1);
    (0..n)
        .map(|_| char::from_digit((random.word() % 16) as u32, 16).unwrap())
        .collect()
}

/// A text of `size` bytes: a head, then pieces by number, then a tail.
struct Worst {
    path: &'static str,
    head: &'static str,
    piece: fn(usize) -> String,
    tail: &'static str,
}

fn of(path: &'static str, piece: fn(usize) -> String) -> Worst {
    Worst {
        path,
        head: "",
        piece,
        tail: "",
    }
}

fn within(
    path: &'static str,
    head: &'static str,
    piece: fn(usize) -> String,
    tail: &'static str,
) -> Worst {
    Worst {
        path,
        head,
        piece,
        tail,
    }
}

impl Worst {
    fn text(&self, size: usize) -> Vec<u8> {
        let mut out = String::with_capacity(size + 256);
        out.push_str(self.head);
        let mut i = 0;
        while out.len() + self.tail.len() < size {
            out.push_str(&(self.piece)(i));
            i += 1;
        }
        out.push_str(self.tail);
        out.into_bytes()
    }
}

fn time(text: &[u8], path: &str) -> Duration {
    let start = Instant::now();
    std::hint::black_box(CLASSIFIER.classify(text, Origin::File { path }));
    start.elapsed()
}

#[expect(clippy::too_many_lines, reason = "a table of texts")]
fn worst() -> Vec<Worst> {
    vec![
        // ini
        of("/root/.databrickscfg", |_| {
            "token=a\n".to_owned() + "token = x-example-x\n"
        }),
        of("/root/.databrickscfg", |i| {
            format!("token = dapi{}\n", hex(i, 32))
        }),
        of("/root/.databrickscfg", |i| {
            format!("[p{i}]\ntoken = {}\n", fresh(i, 24))
        }),
        of("/root/.my.cnf", |i| {
            format!("password = {}\n", fresh(i, 12))
        }),
        of("/root/.my.cnf", |_| "password = example\n".to_owned()),
        of("/root/.config/rclone/rclone.conf", |_| {
            "pass = changeme\n".to_owned()
        }),
        of("/root/.pypirc", |i| {
            format!("username = {}\npassword = x\n", fresh(i, 30))
        }),
        // json
        within(
            "/root/.docker/config.json",
            "{\"auths\":{",
            |i| format!("\"h{i}.x\":{{\"auth\":\"dXNlcjpwYXNz\"}},\n"),
            "\"z\":{}}}",
        ),
        within(
            "/root/.docker/config.json",
            "{\"auths\":{",
            |i| format!("\"h{i}.x\":{{\"identitytoken\":\"{}\"}},\n", fresh(i, 30)),
            "\"z\":{}}}",
        ),
        within(
            "/root/.docker/config.json",
            "[",
            |i| {
                format!(
                    "{{\"auths\":{{\"h\":{{\"password\":\"{}\\n\"}}}}}},\n",
                    fresh(i, 30)
                )
            },
            "{}]",
        ),
        within(
            "/root/.docker/config.json",
            "[",
            |_| "{\"auths\":{\"h\":{\"password\":\"your-example\"}}},\n".to_owned(),
            "{}]",
        ),
        within(
            "/root/.claude/.credentials.json",
            "[",
            |i| {
                format!(
                    "{{\"claudeAiOauth\":{{\"accessToken\":\"\\u0041{}\",\"refreshToken\":\"changeme\"}}}},\n",
                    fresh(i, 20)
                )
            },
            "{}]",
        ),
        within(
            "/root/.claude/.credentials.json",
            "[",
            |i| {
                format!(
                    "{{\"claudeAiOauth\":{{\"zrefreshToken\":\"{}\",\"accessToken\":\"{}\"}}}},\n",
                    fresh(i, 20),
                    fresh(i + 1, 20)
                )
            },
            "{}]",
        ),
        within(
            "/root/.config/gcloud/application_default_credentials.json",
            "[",
            |i| {
                format!(
                    "{{\"type\":\"service_account\",\"client_email\":\"a@b.c\",\"private_key\":\"-----BEGIN PRIVATE KEY-----\\nMIIE{}\\n-----END PRIVATE KEY-----\\n\"}},\n",
                    fresh(i, 80)
                )
            },
            "{}]",
        ),
        within(
            "/srv/.mcp.json",
            "{\"mcpServers\":{",
            |i| {
                format!(
                    "\"s{i}\":{{\"env\":{{\"TOKEN\":\"{}\"}},\"args\":[\"--api-key\",\"{}\"]}},\n",
                    fresh(i, 24),
                    fresh(i + 7, 24)
                )
            },
            "\"z\":{}}}",
        ),
        within(
            "/srv/x.tfstate",
            "{\"terraform_version\":\"1\",\"resources\":[",
            |i| {
                format!(
                    "{{\"type\":\"t\",\"name\":\"n\",\"instances\":[{{\"attributes\":{{\"password\":\"{}\"}}}}]}},\n",
                    fresh(i, 16)
                )
            },
            "{}]}",
        ),
        within("/root/.docker/config.json", "", |_| "[".to_owned(), ""),
        within("/root/.docker/config.json", "", |_| "{} ".to_owned(), ""),
        within("/root/.docker/config.json", "[", |_| "0,".to_owned(), "0]"),
        // yaml
        of("/root/.kube/config", |_| "[".to_owned()),
        of("/root/.kube/config", |_| "- ".to_owned()),
        of("/root/.kube/config", |_| "? ".to_owned()),
        of("/root/.kube/config", |_| "a: \n".to_owned()),
        of("/root/.kube/config", |_| "{a: ".to_owned()),
        of("/root/.kube/config", |_| "---\n".to_owned()),
        of("/root/.kube/config", |i| {
            format!(
                "k{i}: &a{i} [*a{}, *a{}]\n",
                i.saturating_sub(1),
                i.saturating_sub(1)
            )
        }),
        within(
            "/root/.kube/config",
            "a: &a [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]\nb: [",
            |_| "*a,".to_owned(),
            "0]\n",
        ),
        within(
            "/root/.kube/config",
            "users:\n",
            |i| format!("- name: u{i}\n  user:\n    token: {}\n", fresh(i, 32)),
            "",
        ),
        of("/root/.my.cnf", |i| {
            format!(
                "user = {}\npassword = abcd\n",
                "u".repeat(if i == 0 { 400_000 } else { 1 })
            )
        }),
        within(
            "/root/.kube/config",
            "contexts:\n",
            |i| format!("- {{name: u{i}, user: {{token: t{i}}}}}\n"),
            "users:\n- {name: q, user: {token: abcdefgh}}\n",
        ),
        of("/srv/secret.yaml", |i| {
            format!("kind: Secret\ndata:\n  k{i}: {}\n---\n", fresh(i, 24))
        }),
        of("/root/.config/gh/hosts.yml", |i| {
            format!("h{i}.com:\n  oauth_token: {}\n", fresh(i, 40))
        }),
        // toml
        of("/root/.cargo/credentials.toml", |i| {
            format!("[registries.r{i}]\ntoken = \"{}\"\n", fresh(i, 32))
        }),
        of("/root/.cargo/credentials.toml", |i| {
            format!("[[a.b{}]]\nx = 1\n", i % 7)
        }),
        of("/root/.cargo/credentials.toml", |_| "[".to_owned()),
        of("/root/.cargo/credentials.toml", |i| {
            format!("a.b.c.d.e.f{i} = 1\n")
        }),
        within(
            "/root/.cargo/credentials.toml",
            "x = [",
            |_| "[0],".to_owned(),
            "]",
        ),
        // lines
        of("/root/.netrc", |i| {
            format!("machine m{i} login u password {}\n", fresh(i, 12))
        }),
        of("/root/.netrc", |_| {
            "machine m login u password \"".to_owned()
        }),
        of("/root/.netrc", |_| "machine a macdef b\n".to_owned()),
        of("/root/.pgpass", |i| format!("h:1:d:u:{}\n", fresh(i, 12))),
        of("/root/.pgpass", |_| "\\::".to_owned()),
        of("/etc/shadow", |i| format!("u{i}:$6${}:1::\n", fresh(i, 20))),
        of("/etc/shadow", |_| ":!".to_owned()),
        of("/srv/.htpasswd", |i| {
            format!("u{i}:$apr1${}\n", fresh(i, 20))
        }),
        of("/etc/ppp/chap-secrets", |i| {
            format!("a b {} *\n", fresh(i, 12))
        }),
        of("/etc/postfix/sasl_passwd", |i| {
            format!("h{i} u:{}\n", fresh(i, 12))
        }),
        of("/root/.curlrc", |i| {
            format!("user = \"u:{}\"\n", fresh(i, 12))
        }),
        of("/etc/rsyncd.secrets", |i| format!("u:{}\n", fresh(i, 12))),
        of("/etc/davfs2/secrets", |i| {
            format!("https://h u {}\n", fresh(i, 12))
        }),
        // consul, keys in files
        of("/etc/consul.d/a.hcl", |_| "tokens {".to_owned()),
        of("/etc/consul.d/a.hcl", |_| {
            "tokens { a = \"b\" }\n".to_owned()
        }),
        within("/etc/consul.d/a.hcl", "tokens {", |_| "a-".to_owned(), "}"),
        of("/etc/consul.d/a.hcl", |_| "\"tokens\":".to_owned()),
        of("/etc/consul.d/a.hcl", |_| "encrypt = \"".to_owned()),
        of("/etc/mongo/keyfile", |i| format!("{}\n", fresh(i, 64))),
        within(
            "/srv/key.p8",
            "0\u{7f}\u{2}\u{1}\0",
            |_| "0.\u{6}".to_owned(),
            "",
        ),
        // strings of source code over lines, most without an end
        of("/srv/a.py", |i| {
            format!("x = \"\"\"\npassword: p{i}\n'''\n")
        }),
        of("/srv/a.rb", |i| format!("x = <<~W{i}\npassword: p\n")),
        of("/srv/a.js", |_| "\\'password: p /*".to_owned()),
        within("/srv/a.js", "password=1\n", |_| "'\\'\"".to_owned(), ""),
        of("/srv/a.js", |i| format!("`\npassword: {}`", fresh(i, 9))),
        of("/srv/a.rs", |_| "\n password: r#\"\\\"".to_owned()),
        // connection strings, keys of JSON
        of("/srv/a.txt", |i| {
            format!("server=a;user id=b;password={};", fresh(i, 16))
        }),
        of("/srv/a.txt", |i| {
            format!("host=a user=b password={} ", fresh(i, 16))
        }),
        of("/srv/a.txt", |_| "user=a password=b ".to_owned()),
        of("/srv/a.txt", |i| {
            format!("\"kty\":\"oct\",\"k\":\"{}\",", fresh(i, 43))
        }),
        of("/srv/a.txt", |_| "K10".to_owned()),
        of("/srv/a.txt", |_| "<auth-user-pass>\n".to_owned()),
        of("/srv/a.txt", |_| "-----BEGIN OpenVPN ".to_owned()),
        of("/srv/a.txt", |_| {
            "-----BEGIN OpenVPN Static key V1-----\n00ff".to_owned()
        }),
        of("/srv/a.txt", |_| "--set a=b,password=".to_owned()),
        of("/srv/a.txt", |_| "adobe_api_key,".to_owned()),
        // states
        within(
            "/srv/terraform.tfstate",
            "{\"terraform_version\":\"1\",\"resources\":[],\"outputs\":{",
            |i| {
                format!(
                    "\"a{i}\":{{\"sensitive\":true,\"value\":\"ghp_{}\"}},",
                    fresh(i, 36)
                )
            },
            "\"z\":1}}",
        ),
        within(
            "/srv/terraform.tfstate",
            "{\"terraform_version\":\"1\",\"resources\":[],\"outputs\":{\"a\":{\"sensitive\":true,\"value\":\"",
            |_| "redis://u:p@h/ ".to_owned(),
            "\"}}}",
        ),
        // who is his own secret
        of("/root/.pgpass", |i| {
            let secret = fresh(i, 40);
            format!("{secret}:1:{secret}:{secret}:{secret}\n")
        }),
        // table
        of("/srv/export.csv", |_| {
            "user,password\nname,token\n".to_owned()
        }),
        within(
            "/srv/export.csv",
            "user,password\n",
            |i| format!("u{i},{}\n", fresh(i, 16)),
            "",
        ),
        of("/srv/export.csv", |i| {
            let rows = ["user,password\n", "a,b,c\n"];
            rows[i % 2].to_owned()
        }),
        within(
            "/srv/export.csv",
            "user,password\n",
            |_| "u,example\n".to_owned(),
            "",
        ),
        // pem and certificates
        of("/srv/keys.pem", |i| {
            format!(
                "-----BEGIN PRIVATE KEY-----\nMIIE{}\n-----END PRIVATE KEY-----\n",
                fresh(i, 80)
            )
        }),
        of("/srv/keys.pem", |_| {
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE".to_owned()
        }),
        of("/srv/keys.pem", |_| {
            "-----BEGIN PRIVATE KEY-----\\".to_owned()
        }),
        of("/srv/keys.pem", |_| {
            "-----BEGIN CERTIFICATE-----\nMIIE-----END".to_owned()
        }),
        within(
            "/srv/keys.pem",
            "-----BEGIN PRIVATE KEY-----\n",
            |_| "Comment:".to_owned(),
            "",
        ),
        // aws
        of("/root/.aws/credentials", |i| {
            format!(
                "aws_access_key_id = AKIA{}\naws_secret_access_key = {}\n",
                fresh(i, 16).to_uppercase(),
                fresh(i, 40)
            )
        }),
        of("/root/.aws/credentials", |i| {
            format!(
                "[p{i}]\naws_access_key_id = AKIA{}\n",
                fresh(i, 16).to_uppercase()
            )
        }),
        of("/root/.aws/credentials", |i| {
            format!("aws_secret_access_key = {}\n", fresh(i, 40))
        }),
        // the scan
        of("/srv/a.txt", |i| format!("T=ghp_{}\n", fresh(i, 36))),
        of("/srv/a.txt", |_| {
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".to_owned()
        }),
        of("/srv/a.txt", |_| "eyJ-".to_owned()),
        of("/srv/a.txt", |_| "eyJ.eyJ.".to_owned()),
        of("/srv/a.txt", |_| "T3BlbkFJ".to_owned()),
        of("/srv/a.txt", |_| "key=[[".to_owned()),
        of("/srv/a.txt", |_| "<key>".to_owned()),
        of("/srv/a.txt", |_| "key='".to_owned()),
        of("/srv/a.txt", |_| "a://".to_owned()),
        of("/srv/a.txt", |_| "a://b:c@".to_owned()),
        of("/srv/a.txt", |_| "sentry dsn datadog asana ".to_owned()),
        of("/srv/a.txt", |_| "datadog_key=".to_owned()),
        of("/srv/a.txt", |_| "curl -u ".to_owned()),
        of("/srv/a.txt", |_| "mysql -p".to_owned()),
        of("/srv/a.txt", |_| "sig=".to_owned()),
        of("/srv/a.txt", |_| "server=;".to_owned()),
        of("/srv/a.txt", |_| "password=".to_owned()),
        of("/srv/a.txt", |_| "PuTTY-User-Key-File-3: x\n".to_owned()),
        of("/srv/a.txt", |_| "\"kty\":\"RSA\",".to_owned()),
        of("/srv/a.txt", |_| "LS0tLS1CRUdJTi".to_owned()),
        of("/srv/a.txt", |_| "https://x/hooks/".to_owned()),
        of("/srv/a.txt", |_| "bearer ".to_owned()),
        of("/srv/a.txt", |_| "AKIA".to_owned()),
        of("/srv/a.txt", |_| "a".to_owned()),
        of("/srv/a.txt", |_| "\u{1b}[31m".to_owned()),
        of("/srv/a.txt", |_| "conda/t/".to_owned()),
        of("/srv/a.txt", |_| "mnemonic: abcdefgh ".to_owned()),
        of("/srv/a.txt", |_| "a_secret_id=".to_owned()),
        of("/srv/a.txt", |i| format!("a_secret_id={}\n", hex(i, 32))),
        of("/srv/a.txt", |_| "authorization\": \"abcdef ".to_owned()),
        of("/srv/a.txt", |i| {
            format!("tid={};exp=1900000000;", hex(i, 32))
        }),
        of("/srv/a.txt", |_| ":_authtoken=".to_owned()),
        of("/srv/a.txt", |_| "chpasswd:\n list:\n".to_owned()),
        of("/srv/a.txt", |_| "token: &a ".to_owned()),
        of("/srv/a.txt", |_| "a_salt = 'b' ".to_owned()),
        within(
            "/srv/auth.json",
            "{\"bearer\": {",
            |i| format!("\"h{i}.x\": \"{}\",\n", fresh(i, 30)),
            "\"z\": \"\"}}",
        ),
        // binary stores
        within(
            "/etc/krb5.keytab",
            "\u{5}\u{2}",
            |_| "\0\0\0\u{10}\0\u{1}\0\u{1}R\0\u{1}n\0\0\0\0\0\0\0".to_owned(),
            "",
        ),
    ]
}

/// Shares of the time that a size may take beyond its own: caches and what else runs on the machine.
const SLACK: f64 = 2.0;
/// Below this nothing is measured.
const NOISE: Duration = Duration::from_millis(40);

/// One time of a text twice and four times as long; `None` when it is within its bounds. A text is given up as slow only when it is slow three times.
fn grows_with_its_size(worst: &Worst) -> Option<String> {
    in_time(worst, |text| text)
}

/// The same for what is made of the texts.
fn in_time(worst: &Worst, made: fn(Vec<u8>) -> Vec<u8>) -> Option<String> {
    let texts = [MIB, 2 * MIB, 4 * MIB].map(|size| made(worst.text(size)));
    let mut least = [Duration::MAX; 3];
    for _ in 0..3 {
        for (text, least) in texts.iter().zip(&mut least) {
            *least = time(text, worst.path).min(*least);
        }
        let bound = |times: f64| least[0].mul_f64(times * SLACK) + NOISE;
        if least[1] <= bound(2.0) && least[2] <= bound(4.0) {
            return None;
        }
    }
    Some(format!(
        "{}: {:?}... takes {least:?}",
        worst.path,
        &worst.text(200)[..60]
    ))
}

#[test]
fn no_text_takes_longer_than_its_size_allows() {
    let slow: Vec<String> = worst().iter().filter_map(grows_with_its_size).collect();
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}

#[test]
fn no_text_in_utf_16_either() {
    /// Little-endian, without a mark.
    fn wide(text: Vec<u8>) -> Vec<u8> {
        String::from_utf8(text)
            .unwrap()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect()
    }
    let slow: Vec<String> = [
        of("/srv/.env", |i| format!("TOKEN={}\n", fresh(i, 30))),
        of("/srv/.env", |i| {
            format!("T\u{e9}\u{1f511}=ghp_{}\n", fresh(i, 36))
        }),
        of("/srv/a.txt", |_| {
            "a plain text with nothing in it\n".to_owned()
        }),
        of("/srv/a.txt", |_| {
            "plain letters at first, then \u{4e2d}".to_owned()
        }),
    ]
    .iter()
    .filter_map(|worst| in_time(worst, wide))
    .collect();
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}
