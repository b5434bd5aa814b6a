//! Counts of a row of minutes as a small drawing.

use maud::{Markup, html};

const HEIGHT: u64 = 32;
const BAR_WIDTH: u64 = 4;

/// The counts of minutes as bars, the earliest first; `label` is the text for people who do not see them.
pub(super) fn sparkline(label: &str, counts: &[u64]) -> Markup {
    let max = counts.iter().copied().max().unwrap_or_default().max(1);
    let width = BAR_WIDTH.saturating_mul(counts.len() as u64);
    let bars = (0_u64..).zip(counts).filter(|(_, count)| 0 < **count);
    html! {
        svg.spark viewBox=(format!("0 0 {width} {HEIGHT}")) role="img" aria-label=(label)
            preserveAspectRatio="none" {
            @for (place, count) in bars {
                @let height = (count.saturating_mul(HEIGHT) / max).max(1);
                rect x=(place * BAR_WIDTH) y=(HEIGHT - height) width=(BAR_WIDTH - 1) height=(height) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_counts_and_never_outside() {
        let drawn = sparkline("two lapses", &[0, 1, 2, 4]).into_string();
        assert_eq!(drawn.matches("<rect").count(), 3);
        assert!(drawn.contains("viewBox=\"0 0 16 32\" role=\"img\" aria-label=\"two lapses\""));
        for bar in ["x=\"4\" y=\"24\"", "x=\"8\" y=\"16\"", "x=\"12\" y=\"0\""] {
            assert!(drawn.contains(bar), "{bar}: {drawn}");
        }
        let lowest = sparkline("", &[1, u64::MAX / HEIGHT]).into_string();
        assert!(lowest.contains("x=\"0\" y=\"31\""), "what there is can be seen: {lowest}");
    }
}
