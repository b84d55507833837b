//! Whose a credential is: what the host's own records say, in the inventory as a user sees it.

use std::process::Command;

#[test]
fn the_unit_that_reads_a_file_is_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("etc/default/shop", "DB_PASSWORD=q3VtZcK8s1LwXy7B\n");
    // What makes a directory the root of a host.
    write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    write("srv/other.env", "DB_PASSWORD=w9KpZcT4s1LwQy2N\n");
    write(
        "etc/systemd/system/shop.service",
        "[Service]\nEnvironmentFile=/etc/default/shop\nExecStart=/bin/true\n",
    );
    let run = |format: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_keytrail"))
            .args(["inventory", "--no-processes", "-o", format, "--root"])
            .arg(&root)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    let document: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
    let text = document.to_string();
    assert_eq!(
        text.matches("\"unit\":\"shop.service\"").count(),
        1,
        "{text}"
    );
    let table = run("table");
    let line = |what: &str| {
        table
            .lines()
            .find(|l| l.contains(what))
            .unwrap_or("")
            .to_owned()
    };
    assert!(line("etc/default/shop").contains("shop.service"), "{table}");
    assert!(!line("srv/other.env").contains("shop.service"), "{table}");
}
