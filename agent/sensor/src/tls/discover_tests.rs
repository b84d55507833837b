use super::*;
use proptest::prelude::*;

const MAPS: &[u8] = b"\
55d0c0a00000-55d0c0a10000 r-xp 00000000 fe:00 99       /usr/bin/curl
7f5c75a00000-7f5c75a1f000 r--p 00000000 fe:00 4242     /usr/lib/x86_64-linux-gnu/libssl.so.3
7f5c75a1f000-7f5c75a70000 r-xp 0001f000 fe:00 4242     /usr/lib/x86_64-linux-gnu/libssl.so.3
7f5c75a70000-7f5c75a80000 r-xp 0001f000 fe:00 4242     /usr/lib/x86_64-linux-gnu/libssl.so.3
7f5c76000000-7f5c76010000 r-xp 00001000 00:2f 17       /srv/my app/lib ssl/libgnutls.so.30.34.3 (deleted)
7f5c77000000-7f5c77010000 rw-p 00001000 00:2f 18       /srv/libssl.so.1.1
7f5c78000000-7f5c78010000 r-xp 00000000 00:00 0        [vdso]
7f5c78100000-7f5c78110000 r-xp 00000000 00:2f 19       /site-packages/x.libs/libssl-1a2b3c4d.so.3
7f5c79000000-7f5c79200000 r-xp 00000000 00:2f 20       /site-packages/native.abi3.so
7f5c79800000-7f5c79810000 r-xp 00000000 00:2f 21       /site-packages/small.abi3.so
7f5c7a000000-7f5c7a200000 r--p 00000000 00:2f 22       /site-packages/data.so
7f5c7b000000-7f5c7b200000 r-xp 00000000 00:2f 23       /usr/bin/program
";

#[test]
fn executable_mappings_of_tls_libraries_once_each() {
    let found = parse_maps(MAPS);
    let shown: Vec<_> = found
        .iter()
        .map(|mapped| {
            (
                mapped.range.as_str(),
                mapped.device,
                mapped.inode,
                mapped.path.to_str().unwrap(),
                mapped.named,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (
                "7f5c75a1f000-7f5c75a70000",
                0xfe << 32,
                4242,
                "/usr/lib/x86_64-linux-gnu/libssl.so.3",
                Some(KnownLibrary::OpenSsl)
            ),
            (
                "7f5c76000000-7f5c76010000",
                0x2f,
                17,
                "/srv/my app/lib ssl/libgnutls.so.30.34.3",
                Some(KnownLibrary::GnuTls)
            ),
            (
                "7f5c78100000-7f5c78110000",
                0x2f,
                19,
                "/site-packages/x.libs/libssl-1a2b3c4d.so.3",
                Some(KnownLibrary::OpenSsl)
            ),
            (
                "7f5c79000000-7f5c79200000",
                0x2f,
                20,
                "/site-packages/native.abi3.so",
                None
            ),
        ]
    );
}

#[test]
fn names_of_libraries() {
    for (name, named) in [
        ("libssl.so", Some(KnownLibrary::OpenSsl)),
        ("libssl.so.1.1", Some(KnownLibrary::OpenSsl)),
        ("libgnutls.so.30", Some(KnownLibrary::GnuTls)),
        ("libssl3.so", Some(KnownLibrary::Nss)),
        ("libnspr4.so", Some(KnownLibrary::Nss)),
        ("libmbedtls.so.14", Some(KnownLibrary::MbedTls)),
        ("libwolfssl.so.35", Some(KnownLibrary::WolfSsl)),
        ("libs2n.so.1", Some(KnownLibrary::S2n)),
        ("libjvm.so", Some(KnownLibrary::Java)),
        (
            "cygrpc.cpython-311-x86_64-linux-gnu.so",
            Some(KnownLibrary::BoringSsl),
        ),
        (
            "libnetty_tcnative_linux_x86_64123.so",
            Some(KnownLibrary::BoringSsl),
        ),
        ("libssl.a", None),
        ("libsslcommon.so", None),
        ("libgnutls-dane.so.0", None),
        ("libgnutls-openssl.so.27", None),
        ("libc.so.6", None),
        ("", None),
    ] {
        assert_eq!(KnownLibrary::by(name.as_bytes()), named, "{name}");
    }
}

#[test]
fn a_directory_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut directories = Directories {
        opened: HashMap::new(),
        known: vec![Directory {
            path: directory.path().to_owned(),
            executables: true,
            time: None,
        }],
    };
    assert_eq!(directories.changed(), []);
    let library = directory.path().join("libssl.so.3");
    std::fs::write(&library, b"x").unwrap();
    let small = directory.path().join("script");
    std::fs::write(&small, b"#!/bin/sh\n").unwrap();
    assert_eq!(
        directories.changed(),
        [(library, Some(KnownLibrary::OpenSsl))]
    );
    assert_eq!(directories.changed(), []);
}

#[test]
fn programs_are_looked_for_where_installers_put_them() {
    let root = tempfile::tempdir().unwrap();
    for path in ["home/ann/.bun/bin", "opt/product/bin", "root"] {
        std::fs::create_dir_all(root.path().join(path)).unwrap();
    }
    let found = programs(root.path());
    for path in [
        "usr/bin",
        "home/ann/.bun/bin",
        "root/.local/bin",
        "opt/product",
        "opt/product/bin",
    ] {
        assert!(found.contains(&root.path().join(path)), "{path}");
    }
}

#[test]
fn what_a_wheel_brings_is_seen_when_it_is_installed() {
    let directory = tempfile::tempdir().unwrap();
    let packages = directory.path().join("python3/site-packages");
    std::fs::create_dir_all(&packages).unwrap();
    let mut known = Vec::new();
    let mut found = Vec::new();
    Walk {
        found: &mut found,
        known: &mut known,
        entries: 0,
    }
    .down(
        directory.path(),
        2,
        Reading {
            keep: true,
            executables: false,
        },
    );
    assert_eq!(found, []);
    let mut directories = Directories {
        known,
        ..Directories::default()
    };
    let libs = packages.join("package.libs");
    std::fs::create_dir(&libs).unwrap();
    let library = libs.join("libssl-8bd944e8.so.3");
    std::fs::write(&library, b"x").unwrap();
    assert_eq!(
        directories.changed(),
        [(library, Some(KnownLibrary::OpenSsl))]
    );
    // Other directories at that depth are not inspected.
    let other = packages.join("package");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("libssl.so.3"), b"x").unwrap();
    assert!(
        directories
            .changed()
            .iter()
            .all(|(path, _)| !path.starts_with(&other))
    );
}

#[test]
fn a_file_written_over_is_another_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let before = FileKey::at(file.path()).unwrap();
    assert_eq!(FileKey::of(file.as_file()).unwrap(), before);
    file.as_file()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_ne!(FileKey::at(file.path()).unwrap(), before);
}

#[test]
fn only_regular_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    assert!(open(directory.path()).is_err());
    let fifo = directory.path().join("libssl.so.3");
    rfs::mknodat(CWD, &fifo, rfs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    // Without a writer, a careless open would wait for ever.
    assert!(open(&fifo).is_err());
}

#[test]
fn the_way_back_is_the_mapped_inode_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libssl.so.3");
    std::fs::write(&path, b"library").unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    let mapped = |inode| Mapped {
        range: "1-2".to_owned(),
        device: 0,
        inode,
        path: path.clone(),
        named: Some(KnownLibrary::OpenSsl),
    };
    assert!(open_mapped(std::process::id(), &mapped(inode)).is_ok());
    assert!(open_mapped(std::process::id(), &mapped(inode + 1)).is_err());
}

proptest! {
    #[test]
    fn any_maps(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(parse_maps(&text).len() <= MAPPED_MAX);
    }

    #[test]
    fn nearly_maps(at in 0..MAPS.len(), byte: u8) {
        let mut text = MAPS.to_vec();
        text[at] = byte;
        prop_assert!(parse_maps(&text).len() <= 8);
    }
}
