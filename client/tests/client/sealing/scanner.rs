//! A search for secrets in bytes: raw, and in every form in which programs print them.

use std::{collections::HashMap, fs, path::Path};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use super::secrets::Secrets;

/// So many bytes of a secret in a row are a find.
const WINDOW: usize = 8;

/// All the patterns to look for.
pub(crate) struct Scanner {
    /// By their first eight bytes: the patterns, and the secrets they belong to.
    patterns: HashMap<[u8; WINDOW], Vec<(Vec<u8>, String)>>,
    /// Whether a pattern begins with these two bytes.
    begins: Vec<bool>,
}

impl Scanner {
    pub(crate) fn new(secrets: &Secrets) -> Self {
        let mut scanner = Self { patterns: HashMap::new(), begins: vec![false; 1 << 16] };
        for (secret, what) in secrets {
            scanner.add(secret, what);
        }
        scanner
    }

    /// Looks for the raw bytes alone.
    pub(crate) fn raw(secrets: &Secrets) -> Self {
        let mut scanner = Self { patterns: HashMap::new(), begins: vec![false; 1 << 16] };
        for (secret, what) in secrets {
            secret.windows(WINDOW).for_each(|window| scanner.pattern(window, what, "raw"));
        }
        scanner
    }

    fn add(&mut self, secret: &[u8], what: &str) {
        for window in secret.windows(WINDOW) {
            self.pattern(window, what, "raw");
            for separator in [",", ", ", " "] {
                let list: Vec<String> = window.iter().map(ToString::to_string).collect();
                self.pattern(list.join(separator).as_bytes(), what, "decimal");
            }
            self.pattern(HEXLOWER.encode(window).as_bytes(), what, "hex");
            self.pattern(HEXUPPER.encode(window).as_bytes(), what, "hex");
        }
        for alignment in 0..3 {
            let mut shifted = vec![0; alignment];
            shifted.extend_from_slice(secret);
            for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
                let text = encoding.encode(&shifted);
                // The ends depend on what stands before and after.
                let own = &text.as_bytes()[4..text.len() - 4];
                own.windows(12).for_each(|window| self.pattern(window, what, "base64"));
            }
        }
    }

    fn pattern(&mut self, pattern: &[u8], what: &str, form: &str) {
        let first = *pattern.first_chunk().unwrap();
        self.begins[usize::from(pattern[0]) << 8 | usize::from(pattern[1])] = true;
        let found = (pattern.to_vec(), format!("{what} ({form})"));
        self.patterns.entry(first).or_default().push(found);
    }

    /// The secrets in some bytes.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<&str> {
        let mut found = Vec::new();
        for place in 0..bytes.len().saturating_sub(WINDOW - 1) {
            if !self.begins[usize::from(bytes[place]) << 8 | usize::from(bytes[place + 1])] {
                continue;
            }
            let rest = &bytes[place..];
            let patterns = self.patterns.get(rest.first_chunk::<WINDOW>().unwrap());
            let hits = patterns.into_iter().flatten().filter(|(text, _)| rest.starts_with(text));
            found.extend(hits.map(|(_, what)| what.as_str()));
        }
        found
    }

    /// The secrets in the files of a folder and its subfolders: the file, and the secret.
    pub(crate) fn find_in(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for file in files(folder) {
            let hits = self.find(&fs::read(&file).unwrap());
            found.extend(hits.into_iter().map(|what| format!("{}: {what}", file.display())));
        }
        found
    }
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_planted_secret_is_found_in_every_form() {
    let secret: Vec<u8> = (0..32).map(|place| place * 7 + 3).collect();
    let scanner = Scanner::new(&[(secret.clone(), "planted".to_owned())].into());
    let decimal = |separator: &str| {
        let numbers: Vec<String> = secret.iter().map(ToString::to_string).collect();
        numbers.join(separator).into_bytes()
    };
    let aligned = |before: usize| {
        let mut bytes = vec![0xAA; before];
        bytes.extend_from_slice(&secret);
        bytes.extend_from_slice(b"after");
        bytes
    };
    let forms = [
        secret[9..17].to_vec(),
        aligned(5),
        HEXLOWER.encode(&secret).into_bytes(),
        HEXUPPER.encode(&secret[3..12]).into_bytes(),
        BASE64_NOPAD.encode(&aligned(0)).into_bytes(),
        BASE64_NOPAD.encode(&aligned(1)).into_bytes(),
        BASE64URL_NOPAD.encode(&aligned(2)).into_bytes(),
        decimal(", "),
        decimal(","),
        format!("{secret:?}").into_bytes(),
    ];
    for (number, form) in forms.iter().enumerate() {
        assert!(!scanner.find(form).is_empty(), "form {number}");
    }
    assert!(scanner.find(&secret[9..16]).is_empty(), "seven bytes are no find");
    assert!(scanner.find(&aligned(5)[..12]).is_empty());
}
