//! No two source files of a crate import each other, also not by way of others, but parent and child.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::tidy::{ROOMS, code_lines, root, walk};

/// A module by its path in the crate; empty for the root.
type Module = Vec<String>;

/// The files of one crate, and the modules that each imports.
#[derive(Default)]
struct Imports {
    texts: BTreeMap<Module, String>,
}

impl Imports {
    fn of(src: &Path) -> Self {
        let mut imports = Self::default();
        walk(src, &mut |path| {
            let relative = path.strip_prefix(src).unwrap().with_extension("");
            let parts =
                relative.components().map(|part| part.as_os_str().to_str().unwrap().to_owned());
            let module: Module =
                parts.filter(|part| !["lib", "main"].contains(&part.as_str())).collect();
            let is_test = module.iter().any(|part| part == "tests");
            // Programs beside the library are crates of their own.
            if !is_test && module.first().is_none_or(|first| first != "bin") {
                let text = std::fs::read_to_string(path).unwrap();
                imports.texts.insert(module, code_lines(&text).collect::<Vec<_>>().join("\n"));
            }
        });
        imports
    }

    /// The paths that a module imports, from the root of the crate; only those it exports again, if asked.
    fn paths(&self, module: &Module, exported_only: bool) -> Vec<Module> {
        let text = self.texts[module].split("#[cfg(test)]").next().unwrap();
        let mut paths = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let line = line.trim_start();
            let exported = ["pub ", "pub(crate) ", "pub(super) "];
            let exported = exported.iter().find_map(|visibility| line.strip_prefix(visibility));
            let private = Some(line).filter(|_| !exported_only);
            let Some(begin) = exported.or(private).and_then(|line| line.strip_prefix("use "))
            else {
                continue;
            };
            let mut statement = begin.to_owned();
            while !statement.contains(';') {
                statement.push_str(lines.next().unwrap());
            }
            let statement: String =
                statement.split(';').next().unwrap().split_whitespace().collect();
            flatten(&statement, &Vec::new(), &mut paths);
        }
        paths.iter().filter_map(|path| absolute(module, path)).collect()
    }

    /// The module that a path leads to, re-exports followed.
    fn target(&self, path: &Module) -> Module {
        let end =
            (0..=path.len()).rev().find(|end| self.texts.contains_key(&path[..*end])).unwrap();
        let (module, rest) = (path[..end].to_vec(), &path[end..]);
        let Some(name) = rest.first() else { return module };
        let exported = self.paths(&module, true).into_iter();
        let found = exported.into_iter().find(|path| path.last() == Some(name));
        found.filter(|found| found != path).map_or(module, |found| self.target(&found))
    }

    fn edges(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let is_kin = |a: &Module, b: &Module| a.starts_with(b) || b.starts_with(a);
        let of = |module| {
            let targets = self.paths(module, false).into_iter().map(|path| self.target(&path));
            targets.filter(|target| !is_kin(module, target)).collect()
        };
        self.texts.keys().map(|module| (module, of(module))).collect()
    }
}

/// Takes a tree of imports apart.
fn flatten(tree: &str, before: &Module, paths: &mut Vec<Module>) {
    let (head, body) = tree.split_once('{').unwrap_or((tree, ""));
    let mut path = before.clone();
    path.extend(head.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
    let Some(body) = body.strip_suffix('}') else {
        path.pop_if(|last| last == "self" && !before.is_empty());
        paths.push(path);
        return;
    };
    let (mut depth, mut begin) = (0, 0);
    for (place, c) in body.char_indices().chain([(body.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if begin < place {
                    flatten(&body[begin..place], &path, paths);
                }
                begin = place + 1;
            }
            _ => {}
        }
    }
}

/// A path from the root of the crate; `None` for another crate's.
fn absolute(module: &Module, path: &Module) -> Option<Module> {
    let first = path.first()?.as_str();
    let supers = path.iter().take_while(|part| *part == "super").count();
    match first {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module.as_slice(), &path[1..]].concat()),
        "super" => Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat()),
        _ => None,
    }
}

/// The modules that lead back to themselves.
fn circular(edges: &BTreeMap<&Module, BTreeSet<Module>>) -> Vec<String> {
    let leads_back = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for target in edges.get(module).into_iter().flatten() {
                if target == from {
                    return true;
                }
                if seen.insert(target) {
                    next.push(target);
                }
            }
        }
        false
    };
    edges.keys().filter(|module| leads_back(module)).map(|module| module.join("/")).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for room in ROOMS {
        let imports = Imports::of(&root().join(room.folder).join("src"));
        let edges = imports.edges();
        assert!(edges.values().any(|targets| !targets.is_empty()), "{}: no imports", room.folder);
        assert_eq!(circular(&edges), [""; 0], "{}", room.folder);
    }
}

#[test]
fn a_circle_is_found_also_by_way_of_a_re_export() {
    let file = |module: &str, text: &str| {
        (
            module.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            text.into(),
        )
    };
    let texts = [
        file("", "pub use self::a::{A, deep::{B, C}};"),
        file("a", "use crate::b::X;"),
        file("a/deep", "use super::super::c::Y;"),
        file("b", "use crate::A;"),
        file("c", "use std::fs;"),
    ];
    let imports = Imports { texts: texts.into() };
    assert_eq!(circular(&imports.edges()), ["a", "b"]);
}
