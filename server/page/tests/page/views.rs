//! Each view of one history, as HTML.

use std::time::Duration;

use insta::assert_snapshot;
use keypool_api::RefusedRequest;
use keypool_ledger::{Event, EventLog, KeyPackageRef, SignatureKey, StreamId};
use keypool_operator_page::{CONTENT_SECURITY_POLICY, OperatorPage};
use keypool_projections::{Command, PolicyChange, Remover};

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
fn a_pool_with_a_very_long_history_is_shown_as_it_is_now() {
    let recorded = Recorded::new();
    recorded.register("bob", 1, "bob");
    recorded.upload("bob", &["one", "two"]);
    let blocking = |is_blocked: bool| {
        let users = vec!["mallory".to_owned()];
        let (blocked, unblocked) = if is_blocked { (users, vec![]) } else { (vec![], users) };
        let (reserve, strangers_per_hour) = (None, None);
        let (joined, removed) = (Vec::new(), Vec::new());
        PolicyChange { reserve, strangers_per_hour, joined, removed, blocked, unblocked }
    };
    for n in 0..50_000 {
        recorded.run("bob", &Command::SetPolicy(blocking(n % 2 == 0))).unwrap();
    }
    recorded.reserve("bob", 1, "alice");
    let page = html(&page_of(recorded), "/page/pool", "name=bob");
    assert!(page.contains("1 available (1 never") && page.contains(" 1 reserved"), "{page}");
    assert!(page.contains("of 50004 events"), "{page}");
    assert!(page.contains("longer than the page reads"), "{page}");
    assert!(page.contains("Event 50004") && !page.contains("Event 49000"), "{page}");
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
fn a_blocked_user_is_said_to_be_and_the_operator_may_say_why() {
    let recorded = story();
    let bob = || "bob".to_owned();
    let reason = Some("sells spam".to_owned());
    let events = [
        Event::UserSuspended { user: bob(), reason: None },
        Event::UserReinstated { user: bob() },
        Event::UserSuspended { user: "bobby".to_owned(), reason: None },
        Event::UserSuspended { user: bob(), reason },
    ];
    recorded.append(StreamId::Server, 1, &events);
    let page = page_of(recorded);
    let pool = html(&page, "/page/pool", "name=bob/tablet");
    let begin = pool.find("Blocks of bob by the operator").unwrap();
    let blocks = &pool[begin..pool.find("Each asks once more").unwrap()];
    let order = ["blocked bob: sells spam", "unblocked bob", "blocked bob."];
    let places =
        order.map(|words| blocks.find(words).unwrap_or_else(|| panic!("{words}: {blocks}")));
    assert!(places.is_sorted() && !blocks.contains("bobby"), "{blocks}");
    assert!(pool.contains("You have blocked ") && pool.contains("Unblock bob"), "{pool}");
    let alice = html(&page, "/page/pool", "name=alice");
    assert!(!alice.contains("Blocks of") && alice.contains("Block alice"), "{alice}");

    assert_snapshot!(lines(&OperatorPage::confirmation("action=block-user&user=bob").body));
    let named = OperatorPage::confirmation("action=unblock-user&user=bob").body;
    assert!(!named.contains("name=\"reason\""), "{named}");
}

#[test]
fn pruning_is_offered_where_payloads_leave_the_log() {
    assert!(!html(&page_of(story()), "/", "").contains("Prune the log now"));
    let mut recorded = story();
    recorded.retention = Some(Duration::from_hours(48));
    let overview = html(&page_of(recorded), "/", "");
    assert!(overview.contains("when they have been over for 2 days"), "{overview}");
    assert!(overview.contains("Prune the log now"));
}

#[test]
fn a_backup_is_offered_where_the_server_has_a_directory_for_backups() {
    assert!(!html(&page_of(story()), "/", "").contains("Back up now"));
    let mut recorded = story();
    recorded.backups = Some("/mnt/<backups>".into());
    let overview = html(&page_of(recorded), "/", "");
    assert!(overview.contains("a new folder of <code>/mnt/&lt;backups&gt;</code>"), "{overview}");
    assert!(overview.contains("Back up now"));
}

#[test]
fn a_live_package_can_be_withdrawn_and_one_that_is_over_cannot() {
    let recorded = story();
    let (spent, live) = (held(&recorded, 1), held(&recorded, 2));
    let state = recorded.state("bob");
    let is_live = |of: &KeyPackageRef| state.live().any(|known| known.facts.keypackage_ref == *of);
    let page = page_of(recorded);
    for of in [spent, live] {
        let biography = html(&page, "/page/search", &format!("q={of}"));
        assert_eq!(biography.contains("Withdraw package"), is_live(&of), "{biography}");
    }
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
