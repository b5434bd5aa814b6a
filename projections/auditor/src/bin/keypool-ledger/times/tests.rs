//! Times: each form, each refusal, and round trips.

use insta::assert_snapshot;
use keypool_ledger::Timestamp;
use quickcheck::quickcheck;

use super::{parse, zoned};

/// 2027-01-15T08:25:00.250Z
const NOW: Timestamp = Timestamp::from_millis(1_800_001_500_250);
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The last day of the year 9999, which no zone has in the year after.
const END_MS: u64 = 253_402_207_200_000;

/// A time as the tool prints it, or the error.
fn told(text: &str) -> String {
    parse(text, NOW).map_or_else(|error| error.to_string(), crate::output::time)
}

#[test]
fn each_form_of_a_time_is_read() {
    for (text, at) in [
        ("2027-01-15T06:30:00Z", "2027-01-15T06:30:00.000Z"),
        ("2027-01-15t06:30z", "2027-01-15T06:30:00.000Z"),
        ("2027-01-15T06:30:00.5+02:00", "2027-01-15T04:30:00.500Z"),
        ("2027-01-15 06:30:00-08:00", "2027-01-15T14:30:00.000Z"),
        ("2027-01-15", "2027-01-15T00:00:00.000Z"),
        ("2027-01-15 06:30", "2027-01-15T06:30:00.000Z"),
        ("2027-01-15T06:30:01.002", "2027-01-15T06:30:01.002Z"),
        ("06:30", "2027-01-15T06:30:00.000Z"),
        (" 23:59:59.999 ", "2027-01-15T23:59:59.999Z"),
        ("now", "2027-01-15T08:25:00.250Z"),
        ("today", "2027-01-15T00:00:00.000Z"),
        ("today 06:30", "2027-01-15T06:30:00.000Z"),
        ("yesterday", "2027-01-14T00:00:00.000Z"),
        ("yesterday  06:30", "2027-01-14T06:30:00.000Z"),
        ("2 hours ago", "2027-01-15T06:25:00.250Z"),
        ("1 day 2h ago", "2027-01-14T06:25:00.250Z"),
        ("3 months ago", "2026-10-15T08:25:00.250Z"),
        ("0 seconds ago", "2027-01-15T08:25:00.250Z"),
    ] {
        assert_eq!(told(text), at, "{text}");
    }
}

#[test]
fn what_is_no_time_is_told_with_the_forms() {
    let texts = [
        "",
        "2027",
        "0630",
        "1800001500250",
        "6:30",
        "06:30pm",
        "06:30Z",
        "06:30+02:00",
        "25:00",
        "2027-02-30",
        "2027-13-01 06:30",
        "15/01/2027",
        "27-01-15",
        "2027-01-15 [Europe/Paris]",
        "2027-01-15T06:30[Europe/Paris]",
        "tomorrow",
        "Yesterday",
        "last week",
        "2 hours",
        "in 2 hours",
        "hours ago",
        "-2 hours ago",
        "ago",
        "99999999 years ago",
        "60 years ago",
        "1969-12-31",
        "1969-12-31T23:59:59.999Z",
    ];
    let said: Vec<String> = texts.iter().map(|text| told(text)).collect();
    for text in &said {
        assert!(text.contains("yesterday 06:30"), "no forms: {text}");
    }
    let short = |text: &String| text.split(" A time is ").next().unwrap_or_default().to_owned();
    assert_snapshot!(said.iter().map(short).collect::<Vec<_>>().join("\n"));
}

quickcheck! {
    fn a_printed_time_is_read_again(millis: u64) -> bool {
        let at = Timestamp::from_millis(millis % END_MS);
        let printed = crate::output::time(at);
        let civil = printed.trim_end_matches('Z').replace('T', " ");
        parse(&printed, NOW).ok() == Some(at) && parse(&civil, NOW).ok() == Some(at)
    }

    fn a_clock_time_is_of_the_day_of_the_clock(now: u64, minutes: u64) -> bool {
        let (now, minutes) = (now % END_MS, minutes % 1440);
        let clock = format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let wanted = now - now % DAY_MS + minutes * 60_000;
        let read = |text: &str| parse(text, Timestamp::from_millis(now)).ok();
        let before = wanted.checked_sub(DAY_MS).map(Timestamp::from_millis);
        read(&clock) == Some(Timestamp::from_millis(wanted))
            && read(&format!("today {clock}")) == read(&clock)
            && read(&format!("yesterday {clock}")) == before
    }

    fn hours_ago_are_subtracted(now: u64, hours: u32) -> bool {
        let (now, hours) = (now % END_MS, u64::from(hours % 100_000));
        let wanted = now.checked_sub(hours * HOUR_MS).map(Timestamp::from_millis);
        parse(&format!("{hours} hours ago"), Timestamp::from_millis(now)).ok() == wanted
    }

    fn any_text_is_a_time_or_an_error(text: String, now: u64) -> bool {
        let now = Timestamp::from_millis(now);
        parse(&text, now).ok().is_none_or(|at| at == now || zoned(at).is_some())
    }

    fn moments_are_written_as_jiff_writes_them(millis: i64, day: u16) -> bool {
        let of_a_day = i64::from(day) * 86_400_000;
        [millis.rem_euclid(253_402_207_200_000), of_a_day, of_a_day - 1].into_iter().all(|millis| {
            let moment = jiff::Timestamp::from_millisecond(millis.max(0)).unwrap();
            let at = Timestamp::from_millis(u64::try_from(millis).unwrap_or_default());
            crate::output::time(at) == format!("{moment:.3}")
        })
    }
}
