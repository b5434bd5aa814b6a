//! Views of many pools.

use keypool_ledger::{EventLog, PoolId};

use crate::recorded::{Recorded, html, page_of};

fn named(n: u64) -> PoolId {
    PoolId::new(&format!("user-{n:06}@chat.example"), "phone").unwrap()
}

#[test]
fn what_is_shown_does_not_grow_with_the_number_of_pools() {
    let recorded = Recorded::new();
    for n in 0..2000 {
        let name = named(n).to_string();
        recorded.upload(&name, &["a", "b"]);
    }
    assert_eq!(recorded.log.head().unwrap().seq, 4001);
    let page = page_of(recorded);
    for (path, query) in [("/", ""), ("/page/pools", "level=critical"), ("/page/search", "q=user")]
    {
        let size = html(&page, path, query).len();
        assert!(size < 40_000, "{path}: {size} bytes");
    }
    let next = html(&page, "/page/pools", "level=critical&skip=1950");
    assert!(next.contains("Earlier ones") && !next.contains("Later ones"));
}
