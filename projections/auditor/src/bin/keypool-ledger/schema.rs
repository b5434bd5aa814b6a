//! `schema`: the JSON schema of the lines that `--json` prints.

use crate::{
    FINE,
    output::{Out, ToolError},
};

/// The schema: `$defs` in lower case are the commands, each with the lines that it prints.
const SCHEMA: &str = include_str!("schema.json");

/// Prints the schema.
pub(crate) fn schema(out: &mut Out) -> Result<u8, ToolError> {
    out.text(SCHEMA)?;
    Ok(FINE)
}
