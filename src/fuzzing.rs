//! Gives the fuzz targets in `fuzz/` access to functions that the crate otherwise keeps private. It has no
//! logic.
//!
//! It is not part of the interface: it exists for the feature `fuzzing` and for tests. `cargo test` also
//! checks the corpora that fuzzing left in the repository against the same properties, so each find is tested
//! again without a fuzzer.

pub use crate::{door::fuzzing as door, glue::fuzzing as glue, pod::fuzzing as pod};

#[cfg(test)]
#[path = "../fuzz/properties/mod.rs"]
mod properties;

#[cfg(test)]
#[path = "../fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::properties;

    /// Panics if the property does not hold.
    type Property = fn(&[u8]);

    /// Every target, by name.
    const TARGETS: [(&str, Property); 7] = [
        ("bundle", properties::bundle::holds),
        ("call_lines", properties::call_lines::holds),
        ("glue_fault", properties::glue_fault::holds),
        ("home_files", properties::home_files::holds),
        ("manifest", properties::manifest::holds),
        ("tuf_metadata", properties::tuf_metadata::holds),
        ("wire_frames", properties::wire_frames::holds),
    ];

    #[test]
    fn every_kept_input_has_the_properties_that_its_target_asserts() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut folders: Vec<_> = fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        folders.sort();
        assert_eq!(folders, TARGETS.map(|(name, _)| name), "a corpus for each target, and a target for each corpus");
        let mut broken = Vec::new();
        for (name, holds) in TARGETS {
            let mut files: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            assert!(files.len() >= 4, "{name} has no corpus");
            for file in files {
                let bytes = fs::read(&file).unwrap();
                // The property's own message says what failed, and not for which input.
                if std::panic::catch_unwind(|| holds(&bytes)).is_err() {
                    broken.push(file);
                }
            }
        }
        assert!(broken.is_empty(), "properties that do not hold are above; of {broken:?}");
    }
}
