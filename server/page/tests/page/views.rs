//! Each view of one history, as HTML.

use insta::assert_snapshot;
use keypool_api::RefusedRequest;
use keypool_ledger::{EventLog, KeyPackageRef, SignatureKey};
use keypool_operator_page::{CONTENT_SECURITY_POLICY, OperatorPage};
use keypool_projections::{Command, Remover};

use crate::{
    history::{START, pool, reservation},
    recorded::{Recorded, Shown, html, page_of, story},
};

/// A line for each tag, so that a changed one is seen.
fn lines(html: &str) -> String {
    html.replace("><", ">\n<")
}

/// The reference of the package that a reservation is of.
fn held(recorded: &Recorded, number: u8) -> KeyPackageRef {
    let state = recorded.state("bob");
    state.reservation(reservation(number)).unwrap().keypackage_ref.clone()
}

#[test]
fn the_overview_shows_the_pools_the_last_hour_and_the_server() {
    let page = page_of(story());
    assert_snapshot!(lines(&html(&page, "/", "")));
    assert_snapshot!("live", page.page.live(&page.source).unwrap());
}

#[test]
fn the_overview_says_how_much_of_the_log_it_has_not_read() {
    let page = Shown { page: OperatorPage::default(), source: story() };
    assert!(html(&page, "/", "").contains("records to go."));
    let page = page_of(story());
    assert!(!html(&page, "/", "").contains("to go."));
}

#[test]
fn pools_at_risk_stand_in_the_order_in_which_they_run_dry() {
    let page = page_of(story());
    assert_snapshot!(lines(&html(&page, "/page/pools", "")));
    let empty = html(&page, "/page/pools", "level=empty");
    assert!(empty.contains("bob%2Ftablet") && empty.contains("never filled"), "{empty}");
    let of_alice = html(&page, "/page/pools", "user=al");
    assert!(of_alice.contains("alice%2Fmain") && !of_alice.contains("bob%2Fmain"), "{of_alice}");
    assert!(html(&page, "/page/pools", "user=nobody").contains("No pool has a user"));
}

#[test]
fn a_pool_shows_its_packages_its_holders_and_its_devices() {
    let page = page_of(story());
    assert_snapshot!(lines(&html(&page, "/page/pool", "name=bob")));
    assert_eq!(page.get("/page/pool", "name=nobody").status, 404);
    assert_eq!(page.get("/page/pool", "name=no%20pool").status, 404);
}

#[test]
fn time_travel_shows_a_moment_and_the_way_from_it_to_now() {
    let recorded = story();
    let page = page_of(recorded);
    assert_snapshot!(lines(&html(&page, "/page/history", "name=bob%2Fmain&at=9")));
    // Beyond the ends there is nothing but the ends.
    let last = html(&page, "/page/history", "name=bob%2Fmain&at=99999");
    assert_eq!(last, html(&page, "/page/history", "name=bob%2Fmain"));
    assert!(last.contains("No package has changed since."), "{last}");
    let first = html(&page, "/page/history", "name=bob%2Fmain&at=0");
    assert!(first.contains("It has never had a package."), "{first}");
}

#[test]
fn a_reservation_that_was_lost_has_a_biography() {
    let recorded = story();
    let lost = held(&recorded, 2);
    let conflict = recorded.log.read(1, usize::MAX).unwrap();
    let conflict = conflict.iter().find(|record| record.envelope.event.name() == "conflict");
    let command = conflict.unwrap().envelope.command;
    let position = conflict.unwrap().seq;
    let page = page_of(recorded);
    let found = html(&page, "/page/search", &format!("q={}", reservation(2)));
    assert_snapshot!(lines(&found));
    let package = html(&page, "/page/search", &format!("q={lost}"));
    assert!(package.contains("carol/main&#39;s") || package.contains("carol/main's"), "{package}");
    let request = html(&page, "/page/search", &format!("q={command}"));
    assert!(request.contains("a late spend by") || request.contains("A late spend"), "{request}");
    let record = html(&page, "/page/search", &format!("q={position}"));
    assert!(record.contains(&command.to_string()), "{record}");
    assert!(html(&page, "/page/search", "q=bob").contains("bob%2Ftablet"));
    assert!(html(&page, "/page/search", "q=ffffffff").contains("Nothing in the log is named"));
    assert!(!html(&page, "/page/search", "").contains("Nothing in the log"));
}

#[test]
fn a_refused_request_is_found_by_its_request_id() {
    let mut recorded = story();
    recorded.refusals.push(RefusedRequest {
        at_ms: START.as_millis(),
        route: "/keypackages/reserve".to_owned(),
        caller: Some(pool("eve")),
        target: Some("bob".to_owned()),
        group_id: None,
        keypackage_ref: None,
        code: "rate_limited".to_owned(),
        limit: Some("pair".to_owned()),
        retry_after_s: Some(60),
        request_id: "refused-1".to_owned(),
    });
    let found = html(&page_of(recorded), "/page/search", "q=refused-1");
    let says = "Refused: at 2027-01-15T08:00:00.000Z eve/main asked /keypackages/reserve about bob and was answered \
                rate_limited by the limit pair, until 2027-01-15T08:01:00.000Z (request refused-1).";
    assert!(found.contains(says), "{found}");
}

#[test]
fn an_action_asks_first_and_says_how_it_went() {
    let form = "action=remove-device&device=bob%2Ftablet";
    assert_snapshot!(lines(&OperatorPage::confirmation(form).body));
    let action = OperatorPage::action(form).unwrap();
    let done = OperatorPage::outcome(&action, Ok("it is removed"));
    assert_eq!(done.status, 200);
    assert!(done.body.contains("Done: it is removed"));
    let refused = OperatorPage::outcome(&action, Err("it is not registered"));
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("Nothing was changed: it is not registered"));
    assert_eq!(OperatorPage::confirmation("action=").status, 400);
    assert_eq!(OperatorPage::action("action=remove-device&device=").unwrap_err().status, 400);

    let recorded = story();
    let by = SignatureKey::new(&[2; 32]).unwrap();
    recorded.run("bob/tablet", &Command::Remove { by: Remover::Key(by) }).unwrap();
    let page = page_of(recorded);
    assert!(html(&page, "/page/pool", "name=bob").contains("Remove bob/main"));
    let removed = html(&page, "/page/pool", "name=bob/tablet");
    assert!(!removed.contains("Remove bob/tablet") && removed.contains("Release the name bob"));
}

#[test]
fn files_have_tags_and_every_answer_has_the_policy() {
    let page = page_of(Recorded::new());
    for path in ["/page/page.css", "/page/page.js", "/page/icon.svg"] {
        let file = OperatorPage::file(path, None).unwrap();
        let tag = file.tag.clone().unwrap();
        let again = OperatorPage::file(path, Some(&format!("\"x\", {tag}"))).unwrap();
        assert_eq!((file.status, again.status, again.body.len()), (200, 304, 0), "{path}");
        assert!(file.headers().contains(&("content-security-policy", CONTENT_SECURITY_POLICY)));
    }
    let overview = page.get("/", "");
    assert!(overview.headers().contains(&("content-security-policy", CONTENT_SECURITY_POLICY)));
    assert!(overview.headers().contains(&("cache-control", "no-store")));
    // Without a referrer a browser sends no origin either, and its forms would be refused.
    assert!(overview.headers().contains(&("referrer-policy", "same-origin")));
    assert_eq!(page.page.get(&page.source, "/page/nothing", ""), None);
    assert!(!overview.body.contains("style=") && !overview.body.contains("onclick"));
}

#[test]
fn the_token_is_asked_for_without_showing_anything() {
    let asked = OperatorPage::sign_in(false);
    assert_eq!(asked.status, 200);
    assert!(!asked.body.contains("not the token"));
    let wrong = OperatorPage::sign_in(true);
    assert_eq!(wrong.status, 403);
    assert_snapshot!(lines(&wrong.body));
    assert!(OperatorPage::is_open("/page/sign-in") && OperatorPage::is_open("/page/page.css"));
    assert!(!OperatorPage::is_open("/") && !OperatorPage::is_open("/page/pools"));
}
