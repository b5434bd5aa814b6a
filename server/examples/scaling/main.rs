//! The load that one machine carries and the needs of more devices, from docs/figures.toml: `just scaling`.
//!
//! It writes its tables into docs/scaling.md between their markers; with `--check` it writes nothing and
//! ends with 1 if the page has other tables.

mod figures;
mod machine;
mod page;
mod spread;

use std::{error::Error, io::Write, path::Path, process::ExitCode};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let (figures, page) = (docs.join("figures.toml"), docs.join("scaling.md"));
    let before = std::fs::read_to_string(&page)?;
    let after = page::with_tables(&before, &std::fs::read_to_string(figures)?)?;
    let mut out = std::io::stdout().lock();
    if before == after {
        writeln!(out, "docs/scaling.md has the tables that docs/figures.toml leads to")?;
    } else if std::env::args().any(|word| word == "--check") {
        writeln!(out, "docs/scaling.md is stale: run `just scaling`")?;
        return Ok(ExitCode::FAILURE);
    } else {
        std::fs::write(&page, after)?;
        writeln!(out, "docs/scaling.md has new tables")?;
    }
    Ok(ExitCode::SUCCESS)
}
