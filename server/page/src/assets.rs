//! The files that the page's HTML names: its style, its script and its icon.

use keypool_ledger::Hash;

/// The path of the style sheet.
pub(crate) const STYLE: &str = "/page/page.css";
/// The path of the script.
pub(crate) const SCRIPT: &str = "/page/page.js";
/// The path of the icon.
pub(crate) const ICON: &str = "/page/icon.svg";

const ASSETS: [Asset; 3] = [
    Asset {
        path: STYLE,
        content_type: "text/css; charset=utf-8",
        text: include_str!("../assets/page.css"),
    },
    Asset {
        path: SCRIPT,
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("../assets/page.js"),
    },
    Asset { path: ICON, content_type: "image/svg+xml", text: include_str!("../assets/icon.svg") },
];

/// A file of the page.
#[derive(Debug)]
pub(crate) struct Asset {
    path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) text: &'static str,
}

impl Asset {
    /// The file at a path.
    pub(crate) fn at(path: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == path)
    }

    /// The tag of its content, for `ETag`.
    pub(crate) fn tag(&self) -> String {
        let digest: String = Hash::of(self.text.as_bytes()).to_string().chars().take(16).collect();
        format!("\"{digest}\"")
    }
}
