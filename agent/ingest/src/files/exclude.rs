//! Places that the configuration says not to inspect.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Globs of paths; what lies below an excluded directory is excluded as well.
#[derive(Clone, Debug)]
pub struct Excluded(GlobSet);

impl Excluded {
    #[must_use]
    pub fn none() -> Self {
        Self(GlobSet::empty())
    }

    /// # Errors
    /// One of the patterns is no glob.
    pub fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        let mut add = |glob: &str| -> Result<(), globset::Error> {
            set.add(GlobBuilder::new(glob).literal_separator(true).build()?);
            Ok(())
        };
        for pattern in patterns {
            let top = pattern.trim_end_matches('/').trim_end_matches("/**");
            add(top)?;
            add(&format!("{top}/**"))?;
        }
        Ok(Self(set.build()?))
    }

    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        !self.0.is_empty() && self.0.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_all_below_it() {
        let excluded =
            Excluded::new(&["/mnt/*/cache".to_owned(), "/srv/nfs/**".to_owned()]).unwrap();
        for (path, expected) in [
            ("/mnt/a/cache", true),
            ("/mnt/a/cache/deep/file", true),
            ("/mnt/a/cached", false),
            ("/mnt/a/b/cache", false),
            ("/srv/nfs", true),
            ("/srv/nfs/x/y", true),
            ("/srv", false),
        ] {
            assert_eq!(excluded.has(path), expected, "{path}");
        }
        assert!(!Excluded::none().has("/mnt"));
    }
}
