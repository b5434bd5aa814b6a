//! The JSON of every command against the schema that `keypool-ledger schema` prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use boon::{Compiler, SchemaIndex, Schemas};
use keypool_ledger::{Event, Record, StreamId};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    checking::{PAPERS, papers},
    choosing::kinds,
    fixtures::{fixtures, signer},
    histories::{exported, sealed, written},
    history::{package, pool, reference},
    refusing::home_with_refusals,
    tool::{copy, sources, tool},
};

/// The address under which the schema is compiled; nothing is fetched.
const ADDRESS: &str = "https://keypool.invalid/schema.json";

/// The commands that write a text and no JSON: a checkpoint for a file, and the schema.
const TEXTS: [&str; 3] = ["checkpoint", "schema", "help"];

/// The schema that the tool prints, and parts of it, compiled.
struct Schema {
    text: Value,
    compiler: Compiler,
    schemas: Schemas,
}

impl Schema {
    fn printed() -> Self {
        let (said, code) = tool(&["schema"]);
        assert_eq!(code, 0, "{said}");
        let text: Value = serde_json::from_str(&said).unwrap();
        let mut compiler = Compiler::new();
        compiler.add_resource(ADDRESS, text.clone()).unwrap();
        Self { text, compiler, schemas: Schemas::new() }
    }

    fn part(&mut self, pointer: &str) -> SchemaIndex {
        let address = format!("{ADDRESS}#{pointer}");
        self.compiler.compile(&address, &mut self.schemas).unwrap_or_else(|err| panic!("{err:#}"))
    }

    /// The commands: the definitions in lower case.
    fn commands(&self) -> BTreeSet<String> {
        let names = self.text["$defs"].as_object().unwrap().keys();
        names.filter(|name| name.starts_with(char::is_lowercase)).cloned().collect()
    }

    /// The forms of a command's lines: each of several, or the only one.
    fn forms(&self, command: &str) -> Vec<String> {
        let of = format!("/$defs/{command}");
        match self.text.pointer(&format!("{of}/anyOf")).and_then(Value::as_array) {
            Some(forms) => (0..forms.len()).map(|n| format!("{of}/anyOf/{n}")).collect(),
            None => vec![of],
        }
    }
}

/// The lines that a command prints as JSON: of standard output alone.
fn json_lines(dir: &Path, args: &[String]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-ledger"));
    let output = command.current_dir(dir).arg("--json").args(args).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let parsed = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{args:?}: {line}"));
    said.lines().map(parsed).collect()
}

/// A folder with every fixture, and with everything that `check` reads.
fn samples() -> TempDir {
    let dir = papers();
    copy(&fixtures(), dir.path());
    copy(&fixtures().join("../logs"), &dir.path().join("logs"));
    home_with_refusals(&dir.path().join("refused"));
    copy(&fixtures().join("journal-clean"), &dir.path().join("backup/journal"));
    fs::write(dir.path().join("backup/checkpoint.key"), "a key").unwrap();
    copy(&fixtures().join("journal-flipped-bit"), &dir.path().join("damaged/journal"));
    fs::write(dir.path().join("forgotten.export"), exported(&of_a_forgotten_package(), 1024))
        .unwrap();
    dir
}

/// A log that ends with an event of a package that `replay` has forgotten, among many that ended.
fn of_a_forgotten_package() -> Vec<Record> {
    let bobs = |event| written(StreamId::Pool(pool("bob")), 0, event, &[]);
    let names: Vec<String> = (b'a'..=b'p').map(|name| char::from(name).to_string()).collect();
    let uploads = names.iter().map(|name| Event::Uploaded(package(name).facts));
    let expired = |name: &String| Event::Expired { keypackage_ref: reference(name) };
    let ends = names.iter().map(expired);
    let again = expired(&"forgotten".to_owned());
    sealed(uploads.chain(ends).chain([again]).map(bobs).collect())
}

/// Command lines that together print every form of every line.
fn command_lines() -> Vec<Vec<String>> {
    let key = signer().public().to_string();
    let mut lines: Vec<String> = [
        "show clean.export ea7aa1fc",
        "explain clean.export ea3a33fc",
        "explain clean.export dave --at 40",
        "explain refused bob --for carol --at 2027-01-15T08:01:00Z",
        "replay clean.export --pool bob",
        "replay clean.export --diff 15 40",
        "replay forgotten.export",
        "export clean.export copy.export",
        "prune clean.export pruned-now.export --keep-days 0",
        "import clean.export restored",
        "hide-names backup hidden",
        "restore backup made-again",
        "repair damaged --from backup",
        "plot clean.export --pool bob --out bob.svg",
        "prove inclusion double-spend.export 4 --checkpoint one.checkpoint",
        "prove consistency logs/schema-1/journal one.checkpoint",
        "check forged.receipt --key KEY",
        "compare one.checkpoint other.checkpoint --key KEY",
        "check keypool-evidence.txt",
        "compare one.export one.export",
        "compare one.export fork/other.export",
        "compare one.export one.checkpoint",
        "compare one.export other.checkpoint",
        "compare clean.export good.receipt",
        "compare clean.export forged.receipt --key KEY",
        "compare first.receipt second.receipt",
        "compare first.receipt first.receipt",
    ]
    .map(|line| line.replace("KEY", &key))
    .to_vec();
    for files in PAPERS {
        lines.push(format!("check {} --key {key}", files.join(" ")));
        lines.push(format!("check {}", files.join(" ")));
    }
    let logs = [
        "schema-1",
        "schema-1-later",
        "schema-1-newest",
        "schema-1-identity",
        "schema-1-capabilities",
        "schema-2",
        "schema-1-operator",
    ];
    let logs = logs.map(|log| format!("logs/{log}/journal"));
    for source in sources().into_iter().chain(logs) {
        for command in ["info", "log", "verify", "audit", "replay"] {
            lines.push(format!("{command} {source}"));
        }
        lines.push(format!("replay {source} --step"));
        lines.push(format!("rebuild {source} --check"));
    }
    lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

#[test]
fn the_json_of_every_command_has_a_form_of_the_schema_and_each_form_occurs() {
    let (mut schema, dir) = (Schema::printed(), samples());
    let mut unseen = BTreeMap::new();
    for command in schema.commands() {
        let forms = schema.forms(&command).into_iter().map(|form| (schema.part(&form), form));
        unseen.insert(command, (forms.collect::<Vec<_>>(), BTreeSet::new()));
    }
    for args in command_lines() {
        let (forms, seen) = unseen.get_mut(&args[0]).unwrap();
        for line in json_lines(dir.path(), &args) {
            let fits = |index| schema.schemas.validate(&line, index).is_ok();
            let found: Vec<_> = forms.iter().filter(|(index, _)| fits(*index)).collect();
            assert!(!found.is_empty(), "{args:?} prints a line without a form: {line}");
            seen.extend(found.into_iter().map(|(_, form)| form.clone()));
            let mut more = line.clone();
            more["field_of_tomorrow"] = Value::Null;
            let fits = |index| schema.schemas.validate(&more, index).is_ok();
            assert!(!forms.iter().any(|(index, _)| fits(*index)), "a new field is noticed: {more}");
        }
    }
    for (command, (forms, seen)) in unseen {
        for (_, form) in forms {
            assert!(seen.contains(&form), "{command} prints no line of the form {form}");
        }
    }
}

/// The commands that the tool lists in its help and that print JSON.
fn listed_commands() -> BTreeSet<String> {
    let (help, _) = tool(&["--help"]);
    let (_, listed) = help.split_once("Commands:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    // A description goes on in lines that begin farther to the right.
    let starts = listed.lines().filter_map(|line| line.strip_prefix("  "));
    let commands = starts.filter_map(|line| line.split(' ').next());
    let json = commands.filter(|name| !name.is_empty() && !TEXTS.contains(name));
    json.map(str::to_owned).collect()
}

#[test]
fn the_schema_has_every_command_and_every_kind_of_event() {
    let schema = Schema::printed();
    assert_eq!(schema.commands(), listed_commands());
    let refs = schema.text["anyOf"].as_array().unwrap().iter();
    let refs = refs.map(|of| of["$ref"].as_str().unwrap().trim_start_matches("#/$defs/"));
    assert_eq!(refs.map(str::to_owned).collect::<BTreeSet<_>>(), schema.commands());

    let kinds: BTreeSet<String> = kinds().into_iter().collect();
    let events = schema.text["$defs"]["Event"]["properties"].as_object().unwrap();
    let enumerated = schema.text["$defs"]["EventKind"]["enum"].as_array().unwrap().iter();
    let enumerated = enumerated.map(|kind| kind.as_str().unwrap().to_owned());
    assert_eq!(events.keys().cloned().collect::<BTreeSet<_>>(), kinds);
    assert_eq!(enumerated.collect::<BTreeSet<_>>(), kinds);
}
