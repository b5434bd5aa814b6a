//! The commented sample of the file of settings, which has each setting with its default or an example.

/// The text of the sample.
pub(super) const SAMPLE: &str = include_str!("../../packaging/keypool-server.toml");
/// The end of a line whose value is an example, since the setting has no default.
const EXAMPLE: &str = "  # an example: not set by default";

/// The settings that only a build with the feature `cluster` has, as lines of the sample.
#[cfg(feature = "cluster")]
const CLUSTER_LINES: &[&str] = &[
    "#cluster = \"nats://a:4222,nats://b:4222,nats://c:4222\"  # an example: not set by default",
    "#cluster-name = \"keypool\"",
    "#cluster-credentials = \"/etc/keypool/nats.nk\"  # an example: not set by default",
    "#cluster-ca = \"/etc/keypool/nats-ca.pem\"  # an example: not set by default",
    "#cluster-replicas = 3",
];
#[cfg(not(feature = "cluster"))]
const CLUSTER_LINES: &[&str] = &[];

/// The setting that only a build with the feature `otlp` has, as a line of the sample.
#[cfg(feature = "otlp")]
const OTLP_LINE: Option<&str> =
    Some("#otlp-endpoint = \"http://127.0.0.1:4318\"  # an example: not set by default");
#[cfg(not(feature = "otlp"))]
const OTLP_LINE: Option<&str> = None;

/// A setting of the sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleSetting {
    /// The name, as the flag has it.
    pub(super) name: &'static str,
    /// The default or the example, as TOML.
    value: &'static str,
    is_example: bool,
}

impl SampleSetting {
    /// The default as TOML, if there is one.
    pub(super) fn default(&self) -> Option<&'static str> {
        (!self.is_example).then_some(self.value)
    }

    /// Values that were written as text, as TOML of the kind that this setting has.
    pub(super) fn toml(&self, values: &[String]) -> String {
        let element = self.value.trim_start_matches('[');
        let written = |value: &String| {
            if element.starts_with('"') {
                serde_json::json!(value).to_string()
            } else {
                value.clone()
            }
        };
        let values: Vec<String> = values.iter().map(written).collect();
        let joined = values.join(", ");
        if self.value.starts_with('[') { format!("[{joined}]") } else { joined }
    }
}

/// The settings of the sample, in its order.
pub(super) fn settings() -> impl Iterator<Item = SampleSetting> {
    SAMPLE.lines().chain(CLUSTER_LINES.iter().copied()).chain(OTLP_LINE).filter_map(|line| {
        let (name, value) = line.strip_prefix('#')?.split_once(" = ")?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let example = value.strip_suffix(EXAMPLE);
        let (value, is_example) = (example.unwrap_or(value), example.is_some());
        is_name.then_some(SampleSetting { name, value, is_example })
    })
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs};

    use clap::CommandFactory;

    use super::{
        super::{CommandLine, config_file::setting_names, read_command_line},
        *,
    };
    use crate::settings::{Options, Settings};

    fn read(text: &str) -> Options {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keypool-server.toml");
        fs::write(&path, text).unwrap();
        let arguments = [OsString::from("keypool-server"), "--config".into(), path.into()];
        let read = read_command_line(arguments).unwrap();
        read.options().unwrap().options.clone()
    }

    fn uncommented(is_example: bool) -> String {
        let wanted = settings().filter(|setting| setting.is_example == is_example);
        let lines = wanted.map(|setting| format!("{} = {}\n", setting.name, setting.value));
        lines.collect::<Vec<String>>().concat()
    }

    #[test]
    fn the_sample_has_each_setting_once_in_the_order_of_the_help() {
        let command = CommandLine::command();
        let sampled: Vec<&str> = settings().map(|setting| setting.name).collect();
        assert_eq!(sampled, setting_names(&command));
    }

    #[test]
    fn the_values_of_the_sample_are_the_defaults() {
        let defaults = read(&uncommented(false));
        assert_ne!(defaults, Options::default(), "the sample sets nothing");
        assert_eq!(Settings::from(defaults), Settings::from(Options::default()));
        assert_eq!(read(SAMPLE), Options::default(), "a line of the sample is not commented out");
    }

    #[test]
    fn the_examples_of_the_sample_are_values_of_their_settings() {
        assert_ne!(read(&uncommented(true)), Options::default());
    }
}
