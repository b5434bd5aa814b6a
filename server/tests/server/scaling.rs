//! The page docs/scaling.md follows from docs/figures.toml.

#[path = "../../examples/scaling/figures.rs"]
mod figures;
#[path = "../../examples/scaling/machine.rs"]
mod machine;
#[path = "../../examples/scaling/page.rs"]
mod page;
#[path = "../../examples/scaling/spread.rs"]
mod spread;

use std::{fs, path::Path};

#[test]
fn the_tables_on_the_page_are_those_of_the_figures() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let written = fs::read_to_string(docs.join("scaling.md")).unwrap();
    let figures = fs::read_to_string(docs.join("figures.toml")).unwrap();
    let made = page::with_tables(&written, &figures).unwrap();
    assert!(written == made, "docs/scaling.md is stale: run `just scaling`");
}

#[test]
fn a_page_without_its_markers_is_refused() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let figures = fs::read_to_string(docs.join("figures.toml")).unwrap();
    assert!(page::with_tables("no tables here", &figures).is_err());
}
