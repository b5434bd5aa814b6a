//! `keypool-server release-name`: asks a running server, at its operator's listener, to release a name.

use std::{fs, path::PathBuf, time::Duration};

use clap::Args;
use serde::Deserialize;
use ureq::Agent;

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Lets anyone register a name again whose user has lost every key: all its devices are removed first.
#[derive(Args, Clone, Debug)]
pub struct ReleaseName {
    /// The user
    pub user: String,
    /// The operator's listener of the running server
    #[arg(
        long,
        env = "KEYPOOL_ADMIN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8081"
    )]
    pub admin_url: String,
    /// The file with the token that the listener asks for, if it does
    #[arg(long, env = "KEYPOOL_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
}

/// The reason why a name was not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseNameError {
    /// The file with the token cannot be read.
    #[error("the token in {} cannot be read", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The server does not answer.
    #[error(
        "no server answers at {url}; start it, or name its operator's listener with --admin-url"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// The error of the request.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct NameReleaseAnswer {
    #[serde(default)]
    devices: Vec<String>,
    #[serde(default)]
    detail: String,
}

impl ReleaseName {
    /// Asks the server, and returns the names of the devices that were removed.
    ///
    /// # Errors
    ///
    /// Returns a [`ReleaseNameError`] if the server cannot be asked or refuses; a refusal changes nothing.
    pub fn run(&self) -> Result<Vec<String>, ReleaseNameError> {
        let url = format!("{}/names/release", self.admin_url.trim_end_matches('/'));
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_TIMEOUT))
            .build();
        let mut request =
            Agent::new_with_config(config).post(&url).header("content-type", "application/json");
        if let Some(path) = &self.admin_token_file {
            let token = fs::read_to_string(path)
                .map_err(|source| ReleaseNameError::Token { path: path.clone(), source })?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        let unreachable =
            |source| ReleaseNameError::Unreachable { url: url.clone(), source: Box::new(source) };
        let body = serde_json::json!({ "user": self.user }).to_string();
        let mut response = request.send(body).map_err(unreachable)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(unreachable)?;
        match (status, serde_json::from_str::<NameReleaseAnswer>(&text)) {
            (200, Ok(answer)) => Ok(answer.devices),
            (_, Ok(answer)) => Err(ReleaseNameError::Refused(answer.detail)),
            (_, Err(_)) => Err(ReleaseNameError::Refused(format!("it answered {status}"))),
        }
    }
}
