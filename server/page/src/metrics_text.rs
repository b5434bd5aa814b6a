//! The figures in the text format of Prometheus.

use std::collections::BTreeMap;

/// The metrics of a server, in the text format of Prometheus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricsText<'a>(pub(crate) &'a str);

impl<'a> MetricsText<'a> {
    /// The value of a metric that has no labels; `None` if it is not there.
    pub(crate) fn value(self, name: &str) -> Option<f64> {
        self.samples(name).find(|(labels, _)| labels.is_empty()).map(|(_, value)| value)
    }

    /// The sums of a metric's values by the values of one of its labels, without those that are zero.
    pub(crate) fn by_label(self, name: &str, label: &str) -> BTreeMap<&'a str, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.samples(name).filter(|(_, value)| *value != 0.0) {
            if let Some(word) = label_of(labels, label) {
                *sums.entry(word).or_insert(0.0) += value;
            }
        }
        sums
    }

    /// The labels and values of a metric.
    fn samples(self, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }
}

/// The value of a label. The words of the server's labels have no quotes.
fn label_of<'a>(labels: &'a str, label: &str) -> Option<&'a str> {
    let mut pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
    pairs.find(|(name, _)| *name == label).map(|(_, value)| value.trim_end_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_label() {
        let text = "# HELP a_total Things.\n# TYPE a_total counter\n\
                    a_total{route=\"/x\",code=\"busy\"} 2\na_total{route=\"/y\",code=\"busy\"} 3\n\
                    a_total{code=\"none\"} 0\na_total_more 9\nfree 1.5e9\n\n";
        let metrics = MetricsText(text);
        assert_eq!(metrics.by_label("a_total", "code"), [("busy", 5.0)].into());
        assert_eq!(metrics.value("free"), Some(1.5e9));
        assert_eq!(metrics.value("a_total"), None);
        assert_eq!(metrics.value("fre"), None);
    }
}
