//! Texts made here: what credentials look like in source, configuration, logs, chat and history, and what is mistaken for
//! them. The forms are the issuers' published ones; all values are fresh with every seed.

use super::ask::Sample;
use super::random::*;

/// A kind of secret: its name, the variable it is usually held in, and how a value is made.
type Maker = (&'static str, &'static str, fn(&mut Random) -> String);

const MAKERS: &[Maker] = &[
    ("github-classic", "GITHUB_TOKEN", |r| {
        format!("ghp_{}", r.string(BASE62, 36))
    }),
    ("github-fine-grained", "GH_TOKEN", |r| {
        format!(
            "github_pat_{}_{}",
            r.string(BASE62, 22),
            r.string(BASE62, 59)
        )
    }),
    ("gitlab", "GITLAB_TOKEN", |r| {
        format!("glpat-{}", r.string(BASE64URL, 20))
    }),
    ("npm", "NPM_TOKEN", |r| {
        format!("npm_{}", r.string(BASE62, 36))
    }),
    ("pypi", "TWINE_PASSWORD", |r| {
        format!("pypi-AgEIcHlwaS5vcmc{}", r.string(BASE64URL, 120))
    }),
    ("slack-bot", "SLACK_BOT_TOKEN", |r| {
        format!(
            "xoxb-{}-{}-{}",
            r.string(DIGIT, 12),
            r.string(DIGIT, 13),
            r.string(BASE62, 24)
        )
    }),
    ("stripe", "STRIPE_SECRET_KEY", |r| {
        format!("sk_live_{}", r.string(BASE62, 24))
    }),
    ("sendgrid", "SENDGRID_API_KEY", |r| {
        format!("SG.{}.{}", r.string(BASE64URL, 22), r.string(BASE64URL, 43))
    }),
    ("google-api", "GOOGLE_API_KEY", |r| {
        format!("AIza{}", r.string(BASE64URL, 35))
    }),
    ("google-oauth", "GOOGLE_CLIENT_SECRET", |r| {
        format!("GOCSPX-{}", r.string(BASE64URL, 28))
    }),
    ("anthropic", "ANTHROPIC_API_KEY", |r| {
        format!("sk-ant-api03-{}AA", r.string(BASE64URL, 93))
    }),
    ("openai-project", "OPENAI_API_KEY", |r| {
        format!(
            "sk-proj-{}T3BlbkFJ{}",
            r.string(BASE64URL, 74),
            r.string(BASE64URL, 74)
        )
    }),
    ("huggingface", "HF_TOKEN", |r| {
        format!("hf_{}", r.string(BASE62, 34))
    }),
    ("vault-service", "VAULT_TOKEN", |r| {
        format!("hvs.{}", r.string(BASE64URL, 95))
    }),
    ("docker-hub", "DOCKER_TOKEN", |r| {
        format!("dckr_pat_{}", r.string(BASE64URL, 27))
    }),
    ("digitalocean", "DO_TOKEN", |r| {
        format!("dop_v1_{}", r.string(HEX, 64))
    }),
    ("telegram", "TELEGRAM_BOT_TOKEN", |r| {
        format!(
            "{}:AA{}",
            r.string("123456789", 10),
            r.string(BASE64URL, 33)
        )
    }),
    ("databricks", "DATABRICKS_TOKEN", |r| {
        format!("dapi{}", r.string(HEX, 32))
    }),
    ("terraform-cloud", "TFE_TOKEN", |r| {
        format!("{}.atlasv1.{}", r.string(BASE62, 14), r.string(BASE62, 67))
    }),
    ("grafana", "GRAFANA_TOKEN", |r| {
        format!("glsa_{}_{}", r.string(BASE62, 32), r.string(HEX, 8))
    }),
    ("pulumi", "PULUMI_ACCESS_TOKEN", |r| {
        format!("pul-{}", r.string(HEX, 40))
    }),
    ("shopify", "SHOPIFY_ADMIN_TOKEN", |r| {
        format!("shpat_{}", r.string(HEX, 32))
    }),
    ("mailgun", "MAILGUN_API_KEY", |r| {
        format!("key-{}", r.string(HEX, 32))
    }),
    ("aws-secret", "AWS_SECRET_ACCESS_KEY", |r| {
        r.string(BASE64, 40)
    }),
    ("azure-client-secret", "AZURE_CLIENT_SECRET", |r| {
        format!("{}8Q~{}", r.string(BASE62, 3), r.string(BASE62, 34))
    }),
    ("jwt", "SESSION_JWT", jwt),
    ("datadog", "DATADOG_API_KEY", |r| r.string(HEX, 32)),
    ("generic-hex", "CLIENT_SECRET", |r| r.string(HEX, 40)),
    ("generic-base62", "ACCESS_TOKEN", |r| r.string(BASE62, 32)),
    ("generic-base64", "ENCRYPTION_KEY", |r| {
        base64(&r.bytes(32), false)
    }),
    ("generic-password-strong", "DB_PASSWORD", |r| {
        format!(
            "{}{}{}",
            r.string(BASE62, 9),
            r.pick(&["!", "#", "@", "%", "-"]),
            r.string(BASE62, 6)
        )
    }),
    ("generic-password-human", "ADMIN_PASSWORD", |r| {
        format!(
            "{}{}{}",
            r.pick(&["Sommer", "dragon", "Blue", "Kestrel", "orbit", "Lunch"]),
            r.string(DIGIT, 4),
            r.pick(&["!", "$", "#", "_x", ""])
        )
    }),
];

fn jwt(r: &mut Random) -> String {
    let header = base64(br#"{"alg":"HS256","typ":"JWT"}"#, true);
    let claims = format!(
        r#"{{"sub":"{}","iss":"https://id.corp.internal","exp":{}}}"#,
        r.string(BASE36, 12),
        1_800_000_000 + r.below(10_000_000)
    );
    format!(
        "{header}.{}.{}",
        base64(claims.as_bytes(), true),
        r.string(BASE64URL, 43)
    )
}

/// How a secret in a variable is written down. `{N}` is the name in capitals, `{n}` in small letters, `{c}` in camel case,
/// `{d}` with dashes, `{v}` the value, `{j}` the value with JSON escapes.
const CONTEXTS: &[(&str, &str)] = &[
    ("env-file", "PORT=8080\n{N}={v}\nDEBUG=0\n"),
    (
        "shell-export",
        "#!/bin/sh\nexport {N}=\"{v}\"\nexec ./run\n",
    ),
    ("python", "import os\n\n{N} = '{v}'\nclient = Client({N})\n"),
    (
        "python-keyword",
        "client = Client(host=\"api.corp.internal\", {n}=\"{v}\")\n",
    ),
    (
        "javascript",
        "const {c} = \"{v}\";\nmodule.exports = { {c} };\n",
    ),
    (
        "javascript-object",
        "module.exports = {\n  host: 'db.internal',\n  {c}: '{v}',\n};\n",
    ),
    ("java", "    private static final String {N} = \"{v}\";\n"),
    ("java-setter", "config.setProperty(\"{n}\", \"{v}\");\n"),
    ("csharp", "        public const string {c} = \"{v}\";\n"),
    ("php", "<?php\ndefine('{N}', '{v}');\n"),
    ("php-array", "return [\n    '{n}' => '{v}',\n];\n"),
    ("go", "const {c} = \"{v}\"\n\nfunc main() {}\n"),
    (
        "go-struct",
        "cfg := Config{\n\tHost: \"x\",\n\t{c}: \"{v}\",\n}\n",
    ),
    ("ruby", "Client.configure do |c|\n  c.{n} = \"{v}\"\nend\n"),
    ("rust", "const {N}: &str = \"{v}\";\n"),
    (
        "json",
        "{\n  \"host\": \"api.corp.internal\",\n  \"{c}\": \"{j}\"\n}\n",
    ),
    (
        "json-in-json",
        "{\"message\": \"request {\\\"{c}\\\": \\\"{j}\\\"} sent\"}\n",
    ),
    ("json-minified", "{\"a\":1,\"{n}\":\"{j}\",\"b\":[2,3]}"),
    ("yaml", "app:\n  replicas: 2\n  {n}: {v}\n"),
    (
        "yaml-quoted",
        "env:\n  - name: X\n    value: y\n{n}: \"{v}\"\n",
    ),
    (
        "kubernetes-env",
        "        env:\n        - name: {N}\n          value: \"{v}\"\n",
    ),
    (
        "compose",
        "services:\n  api:\n    environment:\n      - {N}={v}\n",
    ),
    (
        "github-actions",
        "      - run: ./deploy\n        env:\n          {N}: {v}\n",
    ),
    ("dockerfile", "FROM debian:12\nENV {N}={v}\nCMD [\"run\"]\n"),
    ("toml", "[auth]\n{n} = \"{v}\"\n"),
    ("ini", "[client]\nhost = db\n{n} = {v}\n"),
    ("properties", "spring.application.name=x\napp.{d}={v}\n"),
    ("xml-element", "<config>\n  <{c}>{v}</{c}>\n</config>\n"),
    ("xml-attribute", "<add key=\"{c}\" value=\"{v}\" />\n"),
    (
        "terraform",
        "variable \"{n}\" {\n  default = \"{v}\"\n}\nprovider \"x\" {\n  {n} = \"{v}\"\n}\n",
    ),
    ("diff-added", "@@ -1,2 +1,3 @@\n import x\n+{N} = \"{v}\"\n"),
    (
        "log-line",
        "2026-03-04T12:00:01Z INFO starting with {N}={v} on port 80\n",
    ),
    (
        "log-json",
        "{\"level\":\"debug\",\"msg\":\"loaded\",\"{n}\":\"{j}\",\"ts\":1}\n",
    ),
    ("shell-history", ": 1700000000:0;export {N}={v}\nls -la\n"),
    ("shell-flag", "$ deploy --region eu --{d} {v} --yes\n"),
    ("shell-flag-equals", "deploy --{d}={v} && echo ok\n"),
    ("markdown", "Set it first:\n\n```sh\nexport {N}={v}\n```\n"),
    (
        "markdown-inline",
        "The {n} is `{v}`, do not share. `{N}={v}`\n",
    ),
    ("chat", "hey can you try with {N}={v} pls\n"),
    (
        "csv-env-dump",
        "PATH=/usr/bin\nHOME=/root\n{N}={v}\nLANG=C\n",
    ),
    ("windows-set", "@echo off\nset {N}={v}\n"),
    ("powershell", "$env:{N} = \"{v}\"\n"),
    ("helm-set", "helm install x ./c --set auth.{c}={v}\n"),
];

fn camel(name: &str) -> String {
    let mut out = String::new();
    for (i, word) in name.split('_').enumerate() {
        let lower = word.to_ascii_lowercase();
        if i == 0 {
            out.push_str(&lower);
        } else {
            out.push_str(&lower[..1].to_ascii_uppercase());
            out.push_str(&lower[1..]);
        }
    }
    out
}

fn fill(template: &str, name: &str, value: &str) -> String {
    template
        .replace("{N}", name)
        .replace("{n}", &name.to_ascii_lowercase())
        .replace("{d}", &name.to_ascii_lowercase().replace('_', "-"))
        .replace("{c}", &camel(name))
        .replace("{j}", &value.replace('\\', "\\\\").replace('"', "\\\""))
        .replace("{v}", value)
}

fn positive(group: String, path: Option<&str>, text: String, secret: Option<String>) -> Sample {
    Sample {
        group,
        positive: true,
        credential: true,
        path: path.map(str::to_string),
        text,
        secret,
    }
}

/// Every kind in every notation.
pub fn positives(seed: u64) -> Vec<Sample> {
    let mut r = Random::new(seed);
    let mut out = Vec::new();
    for &(kind, name, make) in MAKERS {
        for &(context, template) in CONTEXTS {
            let value = make(&mut r);
            let text = fill(template, name, &value);
            out.push(positive(
                format!("{kind} / {context}"),
                None,
                text,
                Some(value),
            ));
        }
    }
    for _ in 0..8 {
        out.extend(forms(&mut r));
    }
    out
}

/// A private key whose body decodes to what PKCS#1 begins with.
fn pem(r: &mut Random) -> String {
    let mut der = vec![
        0x30, 0x82, 0x04, 0xa4, 0x02, 0x01, 0x00, 0x02, 0x82, 0x01, 0x01, 0x00,
    ];
    der.extend(r.bytes(1180));
    let body = base64(&der, false);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|l| std::str::from_utf8(l).unwrap_or_default())
        .collect();
    format!(
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
        lines.join("\n")
    )
}

/// Credentials with a notation of their own.
#[expect(clippy::too_many_lines, reason = "a table of notations")]
fn forms(r: &mut Random) -> Vec<Sample> {
    let mut out = Vec::new();
    let mut add = |group: &str, path: Option<&str>, text: String, secret: Option<&str>| {
        out.push(positive(
            group.to_string(),
            path,
            text,
            secret.map(str::to_string),
        ));
    };
    let word = |r: &mut Random| r.string(LOWER, 7);
    let password = r.string(BASE62, 14);
    let (user, host) = (word(r), format!("{}.corp.internal", word(r)));
    for scheme in [
        "postgresql",
        "postgres",
        "mysql",
        "mongodb+srv",
        "redis",
        "amqp",
        "https",
        "mssql",
        "ftp",
        "smtp",
    ] {
        add(
            &format!("url {scheme}"),
            None,
            format!("backend = {scheme}://{user}:{password}@{host}/prod\n"),
            Some(&password),
        );
    }
    add(
        "url password with percent escapes",
        None,
        format!(
            "DATABASE_URL=postgres://{user}:{}%40{}@{host}:5432/app",
            &password[..6],
            &password[6..]
        ),
        None,
    );
    add(
        "connection string ADO",
        None,
        format!(
            "\"Server={host},1433;Database=app;User Id={user};Password={password};Encrypt=true\""
        ),
        Some(&password),
    );
    add(
        "connection string libpq",
        None,
        format!("dsn = \"host={host} port=5432 user={user} password={password} dbname=app\""),
        Some(&password),
    );
    add(
        "connection string JDBC",
        None,
        format!("jdbc.url=jdbc:postgresql://{host}:5432/app?user={user}&password={password}"),
        Some(&password),
    );
    // Command lines and statements; a password as people choose them.
    let chosen = format!(
        "{}{}{}",
        r.pick(&["Winter", "tr0ub", "kite", "Sommer"]),
        r.string(DIGIT, 4),
        r.pick(&["!", "#", "&x", ""])
    );
    for (group, template) in [
        (
            "sql identified by",
            "CREATE USER 'app'@'%' IDENTIFIED BY '{}';",
        ),
        (
            "powershell secure string",
            "$p = ConvertTo-SecureString \"{}\" -AsPlainText -Force",
        ),
        (
            "powershell parameter",
            "Invoke-Sqlcmd -Server h -Password '{}'",
        ),
        (
            "docker login",
            "docker login -u bob -p {} registry.corp.internal",
        ),
        ("redis-cli", "redis-cli -h h -a {} ping"),
        ("ldapsearch", "ldapsearch -D cn=admin -w {} -b dc=corp"),
        ("sshpass", "sshpass -p '{}' ssh root@h"),
        ("net user", "net user bob {} /add"),
        ("smbclient", "smbclient //h/share -U bob%{}"),
        ("bindpw", "uri ldap://h\nbindpw {}\n"),
        ("wpa psk", "network={\n ssid=\"x\"\n psk=\"{}\"\n}\n"),
        ("requests auth", "requests.get(url, auth=(\"bob\", \"{}\"))"),
        ("entry element", "<entry key=\"db.password\">{}</entry>"),
        (
            "property element",
            "<property name=\"password\" value=\"{}\"/>",
        ),
        ("ansible", "ansible_become_password: {}\n"),
        (
            "kubectl literal",
            "kubectl create secret generic x --from-literal=password={}\n",
        ),
        ("keytool", "keytool -genkey -storepass {} -alias x"),
        ("pw", "user: bob\npw: {}\n"),
    ] {
        add(
            group,
            None,
            template.replacen("{}", &chosen, 1),
            Some(&chosen),
        );
    }
    let git = r.string(HEX, 40);
    add(
        "git token as user",
        None,
        format!("git clone https://{git}@github.com/o/r.git"),
        Some(&git),
    );
    add(
        "git x-oauth-basic",
        None,
        format!("https://{git}:x-oauth-basic@github.com/o/r"),
        Some(&git),
    );
    let account_key = base64(&r.bytes(64), false);
    add(
        "azure storage",
        None,
        format!(
            "DefaultEndpointsProtocol=https;AccountName={user};AccountKey={account_key};EndpointSuffix=core.windows.net"
        ),
        Some(&account_key),
    );
    let (id, secret) = (
        format!("AKIA{}", r.string(BASE32, 16)),
        r.string(BASE64, 40),
    );
    add(
        "aws ini",
        Some("/root/.aws/credentials"),
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
        Some(&secret),
    );
    add(
        "aws json",
        None,
        format!("{{\"AccessKeyId\": \"{id}\", \"SecretAccessKey\": \"{secret}\"}}"),
        Some(&secret),
    );
    add(
        "aws csv",
        None,
        format!("Access key ID,Secret access key\n{id},{secret}\n"),
        Some(&secret),
    );
    add(
        "aws boto3",
        None,
        format!("boto3.client('s3', aws_access_key_id='{id}', aws_secret_access_key='{secret}')"),
        Some(&secret),
    );
    let key = pem(r);
    add("pem", None, key.clone(), None);
    add(
        "pem in json",
        None,
        format!("{{\"private_key\": \"{}\"}}", key.replace('\n', "\\n")),
        None,
    );
    add(
        "pem in env",
        None,
        format!("PRIVATE_KEY=\"{}\"\n", key.replace('\n', "\\n")),
        None,
    );
    add(
        "pem in yaml",
        None,
        format!(
            "tls:\n  key: |\n{}",
            key.lines()
                .map(|l| format!("    {l}\n"))
                .collect::<String>()
        ),
        None,
    );
    add(
        "pem in base64",
        None,
        format!("data:\n  tls.key: {}\n", base64(key.as_bytes(), false)),
        None,
    );
    add("pem with crlf", None, key.replace('\n', "\r\n"), None);
    let token = r.string(BASE62, 40);
    add(
        "curl bearer",
        None,
        format!("curl -H \"Authorization: Bearer {token}\" https://{host}/v1/x"),
        Some(&token),
    );
    add(
        "http header",
        None,
        format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {token}\r\n\r\n"),
        Some(&token),
    );
    add(
        "curl basic",
        None,
        format!("curl -u {user}:{password} https://{host}/"),
        Some(&password),
    );
    add(
        "basic header",
        None,
        format!(
            "Authorization: Basic {}",
            base64(format!("{user}:{password}").as_bytes(), false)
        ),
        None,
    );
    add(
        "url query",
        None,
        format!("GET https://{host}/v1?access_token={token}&x=1"),
        Some(&token),
    );
    add(
        "docker config",
        Some("/root/.docker/config.json"),
        format!(
            "{{\"auths\":{{\"{host}\":{{\"auth\":\"{}\"}}}}}}",
            base64(format!("{user}:{password}").as_bytes(), false)
        ),
        None,
    );
    add(
        "npmrc",
        Some("/root/.npmrc"),
        format!("//{host}/:_authToken={token}\n"),
        Some(&token),
    );
    add(
        "netrc",
        Some("/root/.netrc"),
        format!("machine {host}\n  login {user}\n  password {password}\n"),
        Some(&password),
    );
    add(
        "pgpass",
        Some("/root/.pgpass"),
        format!("{host}:5432:app:{user}:{password}\n"),
        Some(&password),
    );
    add(
        "git-credentials",
        Some("/root/.git-credentials"),
        format!("https://{user}:{password}@{host}\n"),
        Some(&password),
    );
    add(
        "kubeconfig token",
        Some("/root/.kube/config"),
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://{host}\nusers:\n- name: {user}\n  user:\n    token: {token}\ncontexts: []\n"
        ),
        Some(&token),
    );
    add(
        "slack webhook",
        None,
        format!(
            "https://hooks.slack.com/services/T{}/B{}/{}",
            r.string(BASE32, 8),
            r.string(BASE32, 10),
            r.string(BASE62, 24)
        ),
        None,
    );
    add(
        "discord webhook",
        None,
        format!(
            "https://discord.com/api/webhooks/{}/{}",
            r.string("123456789", 18),
            r.string(BASE64URL, 68)
        ),
        None,
    );
    add(
        "wireguard",
        Some("/etc/wireguard/wg0.conf"),
        format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.0.0.2/24\n",
            base64(&r.bytes(32), false)
        ),
        None,
    );
    add(
        "age",
        None,
        format!(
            "AGE-SECRET-KEY-1{}",
            r.string("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)
        ),
        None,
    );
    add(
        "shadow",
        Some("/etc/shadow"),
        format!(
            "{user}:$6${}${}:19000:0:99999:7:::\n",
            r.string(BASE62, 8),
            r.string(BASE62, 86)
        ),
        None,
    );
    add(
        "sql",
        None,
        format!("ALTER USER {user} WITH PASSWORD '{password}';"),
        Some(&password),
    );
    add(
        "mysql command",
        None,
        format!("mysql -h {host} -u {user} --password={password} app < dump.sql"),
        Some(&password),
    );
    add(
        "my.cnf",
        Some("/root/.my.cnf"),
        format!("[client]\nuser={user}\npassword={password}\n"),
        Some(&password),
    );
    out
}

/// What is mistaken for credentials.
pub fn negatives(seed: u64) -> Vec<Sample> {
    let mut r = Random::new(seed ^ 0x6e65_6761);
    let mut out = Vec::new();
    for _ in 0..12 {
        look_alikes(&mut r, &mut out);
    }
    // Placeholders and references in every notation.
    const EMPTY: &[&str] = &[
        "${SECRET}",
        "$SECRET",
        "{{ vault_secret }}",
        "${{ secrets.TOKEN }}",
        "<your-token>",
        "YOUR_API_KEY",
        "changeme",
        "xxxxxxxxxxxxxxxx",
        "****************",
        "REDACTED",
        "example",
        "null",
        "%(token)s",
        "#{ENV['TOKEN']}",
        "<%= token %>",
        "insert-your-key-here",
        "TODO",
        "...",
        "vault:secret/data/app#token",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app",
        "/run/secrets/token",
        "op://vault/item/field",
        "file:///etc/app/token",
        "string",
        "required",
        "00000000000000000000000000000000",
    ];
    for value in EMPTY {
        for &(context, template) in CONTEXTS {
            let name = r.pick(&[
                "API_TOKEN",
                "DB_PASSWORD",
                "CLIENT_SECRET",
                "GITHUB_TOKEN",
                "AWS_SECRET_ACCESS_KEY",
            ]);
            out.push(negative(
                format!("placeholder / {context}"),
                fill(template, name, value),
            ));
        }
    }
    out
}

fn negative(group: String, text: String) -> Sample {
    Sample {
        group,
        positive: false,
        credential: false,
        path: None,
        text,
        secret: None,
    }
}

fn uuid(r: &mut Random) -> String {
    let h = r.string(HEX, 32);
    format!(
        "{}-{}-4{}-a{}-{}",
        &h[..8],
        &h[8..12],
        &h[13..16],
        &h[17..20],
        &h[20..]
    )
}

#[expect(clippy::too_many_lines, reason = "a table of notations")]
fn look_alikes(r: &mut Random, out: &mut Vec<Sample>) {
    let sha1 = |r: &mut Random| r.string(HEX, 40);
    let sha256 = |r: &mut Random| r.string(HEX, 64);
    let mut add = |group: &str, text: String| out.push(negative(group.to_string(), text));
    add(
        "git log",
        format!(
            "commit {}\nAuthor: A B <a@b.org>\nDate: Mon\n\n    Fix token refresh\n",
            sha1(r)
        ),
    );
    add(
        "git tree",
        format!(
            "index {}..{} 100644\n--- a/auth/token.go\n",
            r.string(HEX, 10),
            r.string(HEX, 10)
        ),
    );
    add(
        "permalink",
        format!(
            "See https://github.com/o/auth-token/blob/{}/src/key.rs#L10\n",
            sha1(r)
        ),
    );
    add(
        "package-lock",
        format!(
            "    \"node_modules/token\": {{\n      \"version\": \"1.2.3\",\n      \"resolved\": \"https://registry.npmjs.org/token/-/token-1.2.3.tgz\",\n      \"integrity\": \"sha512-{}\"\n    }}\n",
            base64(&r.bytes(64), false)
        ),
    );
    add(
        "yarn.lock",
        format!(
            "jsonwebtoken@^9.0.0:\n  version \"9.0.2\"\n  resolved \"https://registry.yarnpkg.com/jsonwebtoken/-/jsonwebtoken-9.0.2.tgz#{}\"\n",
            sha1(r)
        ),
    );
    add(
        "go.sum",
        format!(
            "golang.org/x/crypto v0.1.0 h1:{}\ngolang.org/x/oauth2 v0.1.0/go.mod h1:{}\n",
            base64(&r.bytes(32), false),
            base64(&r.bytes(32), false)
        ),
    );
    add(
        "Cargo.lock",
        format!(
            "[[package]]\nname = \"secrecy\"\nversion = \"0.8.0\"\nchecksum = \"{}\"\n",
            sha256(r)
        ),
    );
    add(
        "requirements hash",
        format!("keyring==24.0 \\\n    --hash=sha256:{}\n", sha256(r)),
    );
    add(
        "sha256sums",
        format!("{}  secret-tool_1.0_amd64.deb\n", sha256(r)),
    );
    add(
        "docker digest",
        format!("FROM registry.internal/auth-key@sha256:{}\n", sha256(r)),
    );
    add(
        "uuid field",
        format!(
            "{{\"id\": \"{}\", \"sessionId\": \"{}\"}}",
            uuid(r),
            uuid(r)
        ),
    );
    add(
        "etag",
        format!(
            "ETag: \"{}\"\r\nX-Request-Id: {}\r\n",
            r.string(HEX, 32),
            uuid(r)
        ),
    );
    add(
        "trace id",
        format!(
            "traceparent: 00-{}-{}-01\n",
            r.string(HEX, 32),
            r.string(HEX, 16)
        ),
    );
    add(
        "ssh public key",
        format!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} me@host\n",
            r.string(BASE64, 43)
        ),
    );
    add(
        "known_hosts",
        format!(
            "host.internal ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ{}\n",
            r.string(BASE64, 320)
        ),
    );
    add(
        "public key pem",
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            base64(&r.bytes(91), false)
        ),
    );
    add(
        "certificate",
        format!(
            "-----BEGIN CERTIFICATE-----\nMIID{}\n-----END CERTIFICATE-----\n",
            r.string(BASE64, 640)
        ),
    );
    add(
        "public key assigned",
        format!(
            "const PUBLIC_KEY = \"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE{}\";\n",
            base64(&r.bytes(64), false)
        ),
    );
    add(
        "css image",
        format!(
            ".key{{background:url(data:image/png;base64,{})}}\n",
            base64(&r.bytes(240), false)
        ),
    );
    add(
        "source map",
        format!(
            "//# sourceMappingURL=data:application/json;base64,{}\n",
            base64(&r.bytes(200), false)
        ),
    );
    add(
        "minified js",
        format!(
            "!function(e,t){{var n=t.token,r=e.password;if(n&&r)return n===r?a(n):b[{}](r.key,t)}}(window,{{token:q,key:w,secret:s.t}});var k_{}=1;",
            r.below(99),
            r.string(BASE62, 8)
        ),
    );
    add(
        "function call",
        format!(
            "token = get_token(client_{}, scope=\"read\")\npassword = getpass.getpass()\n",
            r.string(LOWER, 4)
        ),
    );
    add("env reference", "const secret = process.env.CLIENT_SECRET;\napi_key = os.environ[\"API_KEY\"]\nString password = System.getenv(\"DB_PASSWORD\");\n".to_string());
    add("type", "password: str\ntoken: Optional[str] = None\napiKey?: string;\nsecret: SecretStr = Field(...)\nprivate String clientSecret;\n".to_string());
    add("signature", "func Login(user string, password string) (token string, err error)\ndef login(self, username, password, token=None):\n".to_string());
    add("i18n", "{\"password\": \"Passwort\", \"token\": \"Zugriffstoken\", \"secret\": \"Geheimnis\", \"api_key\": \"API-Schl\u{fc}ssel\", \"passwordHint\": \"Mindestens acht Zeichen\"}".to_string());
    add("i18n properties", "login.password=Enter your password\nlogin.token=Access token\nerror.secret=The secret is wrong\n".to_string());
    add("html form", "<input type=\"password\" name=\"password\" placeholder=\"Password\" autocomplete=\"current-password\">\n<label for=\"token\">Token:</label>\n".to_string());
    add("json schema", "{\"properties\": {\"password\": {\"type\": \"string\"}, \"token\": {\"type\": \"string\", \"minLength\": 20}}}".to_string());
    add("openapi", "  securitySchemes:\n    apiKey:\n      type: apiKey\n      name: X-API-Key\n      in: header\n    bearer:\n      scheme: bearer\n      bearerFormat: JWT\n".to_string());
    add("help text", "  -p, --password PASSWORD   password of the user\n      --token=TOKEN         access token to use\n      --secret-file FILE    read the secret from a file\n".to_string());
    add("prose", "The password must have at least 12 characters. Reset your token if the secret key is lost; see the API key page.\n".to_string());
    add("man page", "\\fB\\-\\-password\\fR=\\fIpassword\\fR\nThe password to use. If no password is given, it is asked for.\n".to_string());
    add("terraform reference", "  password = var.db_password\n  token    = data.vault_generic_secret.app.data[\"token\"]\n  secret   = random_password.db.result\n".to_string());
    add(
        "helm template",
        "  password: {{ .Values.db.password | quote }}\n  token: {{ include \"app.token\" . }}\n"
            .to_string(),
    );
    add("kubernetes reference", "        env:\n        - name: DB_PASSWORD\n          valueFrom:\n            secretKeyRef:\n              name: db-credentials\n              key: password\n".to_string());
    add("ansible", "    password: \"{{ lookup('env', 'DB_PASSWORD') }}\"\n    api_token: \"{{ vault_api_token }}\"\n".to_string());
    add("actions reference", "        env:\n          GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}\n          NPM_TOKEN: ${{ secrets.NPM_TOKEN }}\n".to_string());
    add("sql schema", "CREATE TABLE users (id INT PRIMARY KEY, password VARCHAR(255) NOT NULL, api_token TEXT, FOREIGN KEY (org) REFERENCES orgs(id));\n".to_string());
    add(
        "sql query",
        "SELECT password, token FROM users WHERE api_key = ? AND secret = $1\n".to_string(),
    );
    add(
        "nsswitch",
        "passwd:         files systemd\ngroup:          files systemd\nshadow:         files\n"
            .to_string(),
    );
    add("openssl.cnf", "private_key     = $dir/private/cakey.pem# The private key\ncertificate     = $dir/cacert.pem\ninput_password = secret\n".to_string());
    add("sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nAuthorizedKeysFile .ssh/authorized_keys\n".to_string());
    add("nginx", "    ssl_certificate_key /etc/ssl/private/site.key;\n    auth_basic_user_file /etc/nginx/htpasswd;\n    proxy_set_header Authorization $http_authorization;\n".to_string());
    add("enum", "public enum TokenType { ACCESS_TOKEN, REFRESH_TOKEN, ID_TOKEN }\nKEY_PASSWORD = 'password'\nTOKEN_FIELD = \"access_token\"\n".to_string());
    add("constants", "const AUTH_TOKEN_KEY = 'auth.token';\nexport const SET_PASSWORD = 'user/SET_PASSWORD';\nstatic final String SECRET_NAME = \"app-db-credentials\";\n".to_string());
    add("tests", "expect(login('alice', wrongPassword)).toThrow();\nassert token == expected_token\nassert.Equal(t, want.Secret, got.Secret)\n".to_string());
    add(
        "stack trace",
        format!(
            "    at TokenService.refresh (TokenService.java:{})\n    at KeyStore.load(KeyStore.java:{})\n",
            r.below(900),
            r.below(900)
        ),
    );
    add(
        "base64 text",
        format!(
            "Content-Transfer-Encoding: base64\n\n{}\n",
            base64(&r.bytes(300), false)
        ),
    );
    add(
        "hex dump",
        format!(
            "00000000  {} {} {}\n",
            r.string(HEX, 16),
            r.string(HEX, 16),
            r.string(HEX, 16)
        ),
    );
    add(
        "color theme",
        format!(
            "token.keyword: '#{}'\ntoken.string: '#{}'\n",
            r.string(HEX, 6),
            r.string(HEX, 6)
        ),
    );
    add(
        "translation key",
        "t('auth.password.reset.title')\n$t(\"settings.apiKey.description\")\n".to_string(),
    );
    add("url without password", "https://user@git.internal/o/r.git\nssh://git@github.com:22/o/r\nhttp://[::1]:8080/@scope/pkg\n".to_string());
    add(
        "email",
        "password contact: security@corp.internal\ntoken-admins@corp.internal\n".to_string(),
    );
    add(
        "cache key",
        format!(
            "cache_key = \"user:{}:profile\"\nkey: build-linux-{}\n",
            r.below(9999),
            r.string(HEX, 8)
        ),
    );
    add("ci cache", "      - uses: actions/cache@v4\n        with:\n          key: ${{ runner.os }}-cargo-${{ hashFiles('**/Cargo.lock') }}\n          restore-keys: linux-\n".to_string());
    add("license", "Permission is hereby granted; the above copyright notice and this key paragraph shall be included.\n".to_string());
    add(
        "gpg",
        format!(
            "gpg --recv-keys {}\nKey fingerprint = {}\n",
            r.string("0123456789ABCDEF", 40),
            r.string("0123456789ABCDEF", 40)
        ),
    );
    add("swift", "let password: String = passwordField.text ?? \"\"\nguard let token = keychain.token else { return }\n".to_string());
    add("shell", "read -s -p \"Password: \" PASSWORD\nTOKEN=$(cat /run/secrets/token)\n[ -z \"$API_KEY\" ] && exit 1\nPASSWORD=\"${1:?}\"\n".to_string());
    add(
        "makefile",
        "TOKEN ?= $(shell cat .token)\nPASSWORD := $(PASSWORD)\n".to_string(),
    );
    add("cpp", "std::string password = request.password();\nauto key = std::make_shared<Key>(id);\nstatic const char* kTokenName = \"token_name\";\n".to_string());
    add(
        "pagination",
        format!(
            "{{\"nextPageToken\": \"{}\", \"items\": []}}",
            r.string(BASE62, 28)
        ),
    );
    add(
        "csp nonce",
        format!(
            "Content-Security-Policy: script-src 'nonce-{}' 'sha256-{}'\n",
            base64(&r.bytes(16), false),
            base64(&r.bytes(32), false)
        ),
    );
    add(
        "aws ids",
        format!(
            "arn:aws:kms:eu-west-1:{}:key/{}\nAMI ami-0{}\n",
            r.string(DIGIT, 12),
            uuid(r),
            r.string(HEX, 16)
        ),
    );
    add(
        "azure ids",
        format!(
            "client_id: {}\ntenant_id = \"{}\"\nsubscription: {}\n",
            uuid(r),
            uuid(r),
            uuid(r)
        ),
    );
    add("build id", format!("BuildID[sha1]={}, stripped\n", sha1(r)));
    add(
        "keyboard",
        "keybindings:\n  key: ctrl+shift+p\n  command: token.copy\n".to_string(),
    );
    add(
        "upper letters",
        format!("MODULE_KEY_{} = auto()\n", r.string(UPPER, 5)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_positive_holds_its_secret_and_seeds_differ() {
        let one = positives(1);
        for sample in &one {
            if let Some(secret) = &sample.secret {
                let escaped = secret.replace('"', "\\\"");
                assert!(
                    sample.text.contains(secret) || sample.text.contains(&escaped),
                    "{}",
                    sample.group
                );
            }
        }
        let two = positives(2);
        let same = one
            .iter()
            .zip(&two)
            .filter(|(a, b)| a.text == b.text)
            .count();
        assert_eq!((one.len(), same), (two.len(), 0));
        assert!(negatives(1).iter().all(|s| !s.positive));
    }
}
