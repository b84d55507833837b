//! A real TLS server: nginx where it is installed, else `openssl s_server`.

use super::free_port;
use crate::{
    command::{Background, act},
    machine::{find, has_ipv6, patience, wait_for},
};
use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
};

pub struct TlsServer {
    pub port: u16,
    /// It serves these as well.
    more: Vec<u16>,
    nginx: bool,
    process: Background,
}

impl TlsServer {
    /// Starts it with files under `dir` and a certificate for `localhost`.
    pub fn start(dir: &Path) -> Self {
        Self::speaking(dir, false, 1)
    }

    /// The same, for clients of HTTP/2. Needs nginx.
    pub fn http2(dir: &Path) -> Self {
        Self::speaking(dir, true, 1)
    }

    /// One that serves so many ports. Needs nginx.
    pub fn of_ports(dir: &Path, ports: usize) -> Self {
        Self::speaking(dir, false, ports)
    }

    /// All ports it serves.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.more.iter().copied())
    }

    fn speaking(dir: &Path, http2: bool, ports: usize) -> Self {
        fs::create_dir_all(dir).unwrap();
        let port = free_port();
        let more: Vec<u16> = (1..ports).map(|_| free_port()).collect();
        act("openssl")
            .args(["req", "-x509", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            // rustls takes no authority's certificate for a server's.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(dir.join("server.key"))
            .arg("-out")
            .arg(dir.join("server.crt"))
            .run()
            .ok();
        let nginx = find("nginx").or_else(|| {
            // Not on the PATH of ordinary users.
            Some(PathBuf::from("/usr/sbin/nginx")).filter(|file| file.is_file())
        });
        let mut process = match &nginx {
            Some(program) => start_nginx(program, dir, port, &more, http2),
            None => {
                assert!(
                    !http2 && more.is_empty(),
                    "no nginx: cargo xtask setup test"
                );
                start_openssl(dir, port)
            }
        };
        wait_for("the TLS server", patience(20), || {
            assert!(
                process.ended().is_none(),
                "the TLS server ended: {}",
                fs::read_to_string(dir.join("stderr")).unwrap_or_default()
            );
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        Self {
            port,
            more,
            nginx: nginx.is_some(),
            process,
        }
    }

    /// An address of it by name.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// The requests it says it got (kept in memory: a file with tokens in it would be a find for the agent), one a line: own address, request, authorization, SNI, length. `None` when the
    /// server keeps no such record.
    #[must_use]
    pub fn log(&self) -> Option<String> {
        self.nginx
            .then(|| String::from_utf8_lossy(&self.process.written()).into_owned())
    }

    /// Fails unless `needle` is in the server's record, where it keeps one: the act must really have happened.
    pub fn got(&self, needle: &str) {
        if self.nginx {
            wait_for("the request in the server's log", patience(5), || {
                self.log().filter(|log| log.contains(needle))
            });
        }
    }
}

fn start_nginx(program: &Path, dir: &Path, port: u16, more: &[u16], http2: bool) -> Background {
    let at = dir.display();
    let h2 = if http2 { " http2" } else { "" };
    let ipv6 = if has_ipv6() {
        format!("listen [::1]:{port} ssl{h2};")
    } else {
        String::new()
    };
    let more: String = more
        .iter()
        .map(|port| format!("listen 127.0.0.1:{port} ssl{h2}; "))
        .collect();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {at}/{name};\n"))
        .concat();
    let config = format!(
        r#"daemon off;
master_process off;
pid {at}/nginx.pid;
error_log {at}/error.log;
events {{ worker_connections 512; }}
http {{
{temporary}  log_format seen '$server_addr "$request" "$http_authorization" sni=$ssl_server_name length=$request_length';
  access_log /dev/stdout seen;
  keepalive_timeout 30;
  client_max_body_size 64m;
  server {{
    listen 127.0.0.1:{port} ssl{h2};
    {more}{ipv6}
    server_name localhost;
    ssl_certificate {at}/server.crt;
    ssl_certificate_key {at}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ default_type text/plain; return 200 "ok\n"; }}
  }}
}}
"#
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config).unwrap();
    act(program)
        .arg("-c")
        .arg(&file)
        .arg("-p")
        .arg(dir)
        .arg("-e")
        .arg(dir.join("error.log"))
        .spawn_reading(&dir.join("stderr"))
}

fn start_openssl(dir: &Path, port: u16) -> Background {
    act("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &port.to_string()])
        .arg("-cert")
        .arg(dir.join("server.crt"))
        .arg("-key")
        .arg(dir.join("server.key"))
        .spawn_reading(&dir.join("stderr"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::sh, machine::Scratch};

    #[test]
    fn curl_reaches_it() {
        let scratch = Scratch::new();
        let server = TlsServer::start(&scratch.join("server"));
        sh("curl -skf -H 'Authorization: Bearer abc' \"$1\"")
            .arg(server.url("/hello"))
            .run()
            .ok();
        server.got("/hello");
        server.got("Bearer abc");
        server.got("sni=localhost");
    }

    #[test]
    fn openssl_serves_too() {
        let scratch = Scratch::new();
        let dir = scratch.make("server");
        // Makes the certificate.
        drop(TlsServer::start(&dir));
        let port = free_port();
        let _server = start_openssl(&dir, port);
        wait_for("openssl s_server", patience(20), || {
            sh("curl -skf -o /dev/null https://localhost:$1/")
                .arg(port.to_string())
                .run()
                .status
                .success()
                .then_some(())
        });
    }
}
