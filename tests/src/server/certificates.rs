//! An authority and the certificate of a server, as an operator makes them.

use crate::command::sh;
use std::path::Path;

/// Makes `ca.crt` and, by it for localhost and 127.0.0.1, `server.crt` with `server.key`.
pub(crate) fn certificates(dir: &Path) {
    const MAKE: &str = r#"
        set -e
        cd "$1"
        new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        openssl req -x509 $new -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
        openssl req $new -subj /CN=server -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >server.ext
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.crt
    "#;
    sh(MAKE).arg(dir).run().ok();
}
