//! The README's guides, as tests run them.

use std::path::PathBuf;

/// The first block of this language under the heading.
#[track_caller]
pub(crate) fn block(heading: &str, language: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = std::fs::read_to_string(path).expect("the README");
    let section =
        text.split_once(&format!("\n### {heading}\n")).unwrap_or_else(|| panic!("no guide {heading}")).1;
    let section = section.split("\n## ").next().and_then(|part| part.split("\n### ").next()).expect("a part");
    let code = section
        .split_once(&format!("```{language}\n"))
        .unwrap_or_else(|| panic!("no {language} in {heading}"));
    code.1.split_once("```").expect("an end").0.to_owned()
}

/// The settings of a guide.
#[track_caller]
pub(crate) fn settings(heading: &str) -> serde_json::Value {
    serde_json::from_str(&block(heading, "json")).expect("JSON")
}

pub(crate) fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
