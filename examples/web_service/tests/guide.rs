//! The guide shows this service's code.

const GUIDE: &str = include_str!("../../../dlock-runtime/src/guide/web.md");
const MANIFEST: &str = include_str!("../Cargo.toml");
const SOURCES: [&str; 5] = [
    include_str!("../src/main.rs"),
    include_str!("../src/shop.rs"),
    include_str!("../src/error.rs"),
    include_str!("../src/tests.rs"),
    include_str!("by_hand.rs"),
];

/// The code blocks with this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    let blocks = GUIDE.split(&*start).skip(1);
    blocks.map(|rest| rest.split_once("```").expect("the end of the block").0).collect()
}

#[test]
fn all_code_of_the_guide_is_compiled_here() {
    let blocks = blocks("rust,ignore");
    assert!(blocks.len() >= 5, "{} blocks", blocks.len());
    for block in blocks {
        // Parts are separated by empty lines; what is between them in the file may be left out in the guide.
        for part in block.split("\n\n").map(str::trim_end) {
            assert!(
                SOURCES.iter().any(|source| source.contains(part)),
                "not in the service:\n{part}"
            );
        }
    }
}

#[test]
fn all_dependencies_of_the_guide_are_used_here() {
    for block in blocks("toml") {
        let lines = block.lines().skip_while(|line| *line != "[dependencies]").skip(1);
        for name in lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name) {
            assert!(MANIFEST.lines().any(|line| line.starts_with(name)), "{name} is not used");
        }
    }
}
