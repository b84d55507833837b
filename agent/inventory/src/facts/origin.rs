//! Whose work a file is, by where it lies: package managers keep what others published in directories of their own, whose
//! content nobody edits.

/// What lies below a directory of this name, or of these names one below the other, was published by others.
const DIRECTORIES: &[&[&str]] = &[
    // npm, yarn, pnpm, bower.
    &["node_modules"],
    &[".npm", "_cacache"],
    &[".yarn", "cache"],
    &["bower_components"],
    // cargo and rustup.
    &[".cargo", "registry"],
    &[".cargo", "git", "checkouts"],
    &[".rustup", "toolchains"],
    // Go, Maven, Gradle, Ruby, PHP, Perl, Haskell, OCaml.
    &["go", "pkg", "mod"],
    &[".m2", "repository"],
    &[".gradle", "caches"],
    &["gems"],
    &[".bundle", "cache"],
    &["vendor", "bundle"],
    &[".cpan", "build"],
    &[".stack", "snapshots"],
    &[".opam"],
    // Managers of whole languages.
    &[".nvm", "versions"],
    &[".sdkman", "candidates"],
    &["share", "doc"],
    &["share", "man"],
];

/// Whether a path is that of something a package manager fetched. Libraries of Python have records of their own, which
/// tell what was changed; there, only its standard library counts.
#[must_use]
pub fn third_party(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some((_, folders)) = parts.split_last() else {
        return false;
    };
    let below = |names: &[&str]| folders.windows(names.len()).any(|there| there == names);
    DIRECTORIES.iter().any(|names| below(names)) || standard_library(folders)
}

/// `lib/python3.11/test`: not what was installed beside it.
fn standard_library(folders: &[&str]) -> bool {
    let python = |name: &str| {
        name.strip_prefix("python").is_some_and(|version| {
            version.starts_with(|c: char| c.is_ascii_digit())
                && version.chars().all(|c| c.is_ascii_digit() || c == '.')
        })
    };
    folders
        .windows(2)
        .any(|there| matches!(there[0], "lib" | "lib64") && python(there[1]))
        && !folders
            .iter()
            .any(|name| matches!(*name, "site-packages" | "dist-packages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_published_and_what_is_ones_own() {
        for path in [
            "/root/app/node_modules/x/test/key.pem",
            "/home/a/.cargo/registry/src/index/hyper-1.0/src/lib.rs",
            "/root/.rustup/toolchains/stable/share/doc/rust/html/search.js",
            "/home/a/go/pkg/mod/golang.org/x/crypto/testdata/key",
            "/root/.pyenv/versions/3.11.7/lib/python3.11/test/ssl_key.pem",
            "/usr/share/doc/x/examples/key.pem",
        ] {
            assert!(third_party(path), "{path}");
        }
        for path in [
            "/root/.npmrc",
            "/root/.cargo/credentials.toml",
            "/home/a/app/lib/python/settings.py",
            "/root/.pyenv/versions/3.11.7/lib/python3.11/site-packages/mine/settings.py",
            "/srv/node_modules",
            "/etc/ssl/private/x.key",
        ] {
            assert!(!third_party(path), "{path}");
        }
    }
}
