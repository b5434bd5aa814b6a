//! Asks the operator's listener of a running server.

use std::{fs, path::PathBuf, time::Duration};

use clap::Args;
use keypool_ledger::NameError;
use serde_json::{Value, json};
use ureq::{Agent, Body, RequestBuilder, http::Response};

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to the operator's listener of a running server.
#[derive(Args, Clone, Debug)]
pub struct AdminAccess {
    /// The operator's listener of the running server
    #[arg(
        long,
        alias = "admin",
        env = "KEYPOOL_ADMIN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8081",
        global = true
    )]
    pub admin_url: String,
    /// The file with the token that the listener asks for, if it does
    #[arg(long, env = "KEYPOOL_ADMIN_TOKEN_FILE", value_name = "FILE", global = true)]
    pub admin_token_file: Option<PathBuf>,
}

/// The reason why a command of the operator was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum AdminCommandError {
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
    /// The name is none that a user can have. Nothing was sent.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(String),
}

impl AdminAccess {
    /// Asks for a path.
    pub(super) fn get(&self, path: &str) -> Result<Value, AdminCommandError> {
        let url = self.url(path);
        let request = self.authorized(agent(Some(ANSWER_TIMEOUT)).get(&url))?;
        answered(&url, request.call())
    }

    /// Asks whether the server is ready, and which requests it refuses for want of disk space.
    pub(super) fn ready(&self) -> Result<Value, AdminCommandError> {
        let url = self.url("/readyz");
        let text = body_of(&url, agent(Some(ANSWER_TIMEOUT)).get(&url).call())?;
        Ok(json!({ "ready": true, "refused": text.lines().nth(1) }))
    }

    /// Posts a body to a path.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, AdminCommandError> {
        self.post_within(Some(ANSWER_TIMEOUT), path, body)
    }

    /// Posts a body to a path, and waits for the answer for as long as the work takes.
    pub(super) fn post_at_length(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Value, AdminCommandError> {
        self.post_within(None, path, body)
    }

    fn post_within(
        &self,
        timeout: Option<Duration>,
        path: &str,
        body: &Value,
    ) -> Result<Value, AdminCommandError> {
        let url = self.url(path);
        let request = self.authorized(agent(timeout).post(&url))?;
        let request = request.header("content-type", "application/json");
        answered(&url, request.send(body.to_string()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.admin_url.trim_end_matches('/'))
    }

    fn authorized<B>(
        &self,
        request: RequestBuilder<B>,
    ) -> Result<RequestBuilder<B>, AdminCommandError> {
        let Some(path) = &self.admin_token_file else { return Ok(request) };
        let token = fs::read_to_string(path)
            .map_err(|source| AdminCommandError::Token { path: path.clone(), source })?;
        Ok(request.header("authorization", format!("Bearer {}", token.trim())))
    }
}

fn agent(timeout: Option<Duration>) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(timeout)
        .build();
    Agent::new_with_config(config)
}

/// The JSON of an answer with status 200.
fn answered(
    url: &str,
    response: Result<Response<Body>, ureq::Error>,
) -> Result<Value, AdminCommandError> {
    let text = body_of(url, response)?;
    serde_json::from_str(&text).map_err(|_| AdminCommandError::Refused("it answered 200".into()))
}

/// The body of an answer with status 200.
fn body_of(
    url: &str,
    response: Result<Response<Body>, ureq::Error>,
) -> Result<String, AdminCommandError> {
    let unreachable =
        |source| AdminCommandError::Unreachable { url: url.to_owned(), source: Box::new(source) };
    let mut response = response.map_err(unreachable)?;
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().map_err(unreachable)?;
    if status == 200 {
        return Ok(text);
    }
    let problem: Option<Value> = serde_json::from_str(&text).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    let detail = detail.map_or_else(|| format!("it answered {status}"), str::to_owned);
    Err(AdminCommandError::Refused(detail))
}
