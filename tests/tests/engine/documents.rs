//! Every file that the top-level documents name exists.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// The text between backticks that is a path in the repository.
fn paths(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(document)).expect(document);
    let quoted = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let in_repository = |path: &String| {
        ["dlock-runtime/", "dlock-macros/", "tests/", "examples/", "docs/", "benches/", "deploy/"]
            .iter()
            .any(|folder| path.starts_with(folder))
    };
    quoted.filter(in_repository).filter(|path| !path.contains(['<', ' ', '*'])).collect()
}

#[test]
fn every_file_that_a_document_names_exists() {
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let paths = paths(document);
        assert!(paths.len() >= 10, "{document} names only {paths:?}");
        for path in paths {
            assert!(root().join(&path).exists(), "{document} names {path}, which does not exist");
        }
    }
}

#[test]
fn the_life_of_a_call_names_no_file_twice() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the document");
    let (_, walk) = text.split_once("## Life of a call").expect("the section");
    let (walk, _) = walk.split_once("## Where things are").expect("the next section");
    let files: Vec<_> =
        walk.split('`').skip(1).step_by(2).filter(|part| part.contains('/')).collect();
    assert!((12..=18).contains(&files.len()), "{files:?}");
    for (number, file) in files.iter().enumerate() {
        assert!(!files[..number].contains(file), "{file} appears twice");
    }
}
