//! Texts that would be more than text: from the log, and from a request.

use keypool_ledger::{Event, GroupId, KeyPackageRef, StreamId};
use keypool_operator_page::OperatorPage;
use keypool_projections::Command;
use quickcheck::quickcheck;

use crate::{
    history::{claim, pool, reference, reservation},
    recorded::{Recorded, html, page_of, reserve},
};

const SCRIPT: &str = "\"'><script>alert(1)</script>\u{202e}evil\u{200b}\u{0}&amp;";

/// A log that holds hostile texts wherever the rules let free text in: a credential, the check of a report, the id of
/// a group.
fn hostile(text: &str) -> Recorded {
    let recorded = Recorded::new();
    recorded.register("bob/main", 1, text);
    recorded.upload("bob", &["a", "b"]);
    let mut command = reserve(1, "alice");
    if let Command::Reserve { group, .. } = &mut command {
        let id: Vec<u8> = text.bytes().take(64).chain([1]).collect();
        *group = GroupId::new(&id).unwrap();
    }
    recorded.run("bob", &command).unwrap();
    let state = recorded.state("bob");
    let held = state.reservation(reservation(1)).unwrap().keypackage_ref.clone();
    let name = ["a", "b"].into_iter().find(|name| reference(name) == held).unwrap();
    recorded.wait(1);
    let check = Some(text.to_owned());
    let report = Command::Report { claim: claim(name, 1, "alice"), check, admissible: true };
    recorded.run("bob", &report).unwrap();
    recorded.append(
        StreamId::Pool(pool("bob")),
        recorded.state("bob").version(),
        &[Event::UserBlocked { user: text.to_owned() }],
    );
    let reason = Some(text.to_owned());
    let suspended = Event::UserSuspended { user: "bob".to_owned(), reason };
    recorded.append(StreamId::Server, 1, &[suspended]);
    recorded
}

fn is_harmless(html: &str) -> bool {
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{0}');
    // The only script is the page's own file.
    html.matches("<script").count() == 1 && !html.contains(hidden) && !html.contains("'><")
}

fn every_view(recorded: Recorded, text: &str) -> Vec<String> {
    let of: KeyPackageRef = reference("a");
    let page = page_of(recorded);
    let query: String = url_encoded(text);
    let mut views = vec![
        html(&page, "/", ""),
        html(&page, "/page/pool", "name=bob"),
        html(&page, "/page/history", "name=bob&at=4"),
        html(&page, "/page/search", &format!("q={of}")),
        html(&page, "/page/search", &format!("q={}", reservation(1))),
        html(&page, "/page/search", &format!("q={query}")),
        html(&page, "/page/pools", &format!("user={query}&level={query}&skip={query}")),
        OperatorPage::confirmation(&format!("action=release-name&user={query}")).body,
        OperatorPage::confirmation(&format!("action=block-user&user=bob&reason={query}")).body,
        OperatorPage::confirmation(&format!("action=revoke-package&package={query}")).body,
        OperatorPage::confirmation(&format!("action={query}")).body,
    ];
    let unknown = page.get("/page/pool", &format!("name={query}"));
    views.push(unknown.body);
    views
}

fn url_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[test]
fn a_text_stays_a_text_wherever_it_comes_from() {
    let long = "W".repeat(1000);
    for text in [SCRIPT, &long, "</title><script src=//evil.example></script>", "'><img src=x>"] {
        for view in every_view(hostile(text), text) {
            assert!(is_harmless(&view), "{view}");
            assert!(view.len() < 60_000, "{}", view.len());
        }
    }
}

#[test]
fn a_hostile_text_can_still_be_read() {
    let page = page_of(hostile(SCRIPT));
    let shown = html(&page, "/page/history", "name=bob&at=1");
    let escaped =
        "&quot;'&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}evil\\u{200b}\\u{0}&amp;amp;";
    assert!(shown.contains(escaped), "{shown}");
}

quickcheck! {
    fn any_query_has_an_answer(path: usize, query: String) -> bool {
        let paths = ["/", "/page/pools", "/page/pool", "/page/history", "/page/search"];
        let page = page_of(hostile("x"));
        let raw = page.get(paths[path % paths.len()], &query);
        let fields: String = ["q", "name", "user", "at", "skip"]
            .map(|field| format!("{field}={}&", url_encoded(&query)))
            .concat();
        let named = page.get(paths[path % paths.len()], &fields);
        is_harmless(&raw.body) && is_harmless(&named.body)
    }
}
