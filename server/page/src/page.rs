//! The page: it follows the log, and answers paths.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, RwLock},
};

use keypool_ledger::{PoolId, ReadError};
use keypool_projections::Level;
use maud::Markup;

use crate::{
    action::{Action, ActionError},
    assets::Asset,
    biography::Biographies,
    disk_forecast::DiskForecast,
    history::History,
    introductions::introductions,
    metrics_text::MetricsText,
    overview::PoolsOverview,
    source::PageSource,
    suspensions::UserSuspensions,
    views::{self, AtRiskQuery, OverviewFigures, ROWS_MAX, TEXT_MAX, paths},
};

/// The value of `Content-Security-Policy` for every answer of the page.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// How many records are taken in under one lock.
const BATCH_RECORDS: usize = 4096;

/// The operator's page of one server. It keeps its folds of the log and of the disk; each call is given the source.
#[derive(Debug, Default)]
pub struct OperatorPage {
    pools: RwLock<PoolsOverview>,
    disk: Mutex<DiskForecast>,
}

/// An answer of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageReply {
    /// The HTTP status.
    pub status: u16,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The value of `ETag` for a file; `None` for HTML, which is never kept.
    pub tag: Option<String>,
    /// The body.
    pub body: String,
}

impl PageReply {
    /// A page that says in a sentence why there is no other.
    #[must_use]
    pub fn message(status: u16, title: &str, text: &str) -> Self {
        Self::html(status, views::message(title, text))
    }

    fn html(status: u16, markup: Markup) -> Self {
        let content_type = "text/html; charset=utf-8";
        Self { status, content_type, tag: None, body: markup.into_string() }
    }

    /// The headers of the answer, names in small letters.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, &str)> {
        let mut headers = vec![
            ("content-type", self.content_type),
            ("content-security-policy", CONTENT_SECURITY_POLICY),
            ("x-content-type-options", "nosniff"),
            // Addresses of the page hold names, and stay here. With `no-referrer` its forms would have no origin.
            ("referrer-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ];
        match &self.tag {
            Some(tag) => headers.extend([("etag", tag.as_str()), ("cache-control", "no-cache")]),
            None => headers.push(("cache-control", "no-store")),
        }
        headers
    }
}

/// The fields of a query.
struct Query(HashMap<String, String>);

impl Query {
    fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// A field that is not empty.
    fn field(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn pool(&self) -> Result<PoolId, PageReply> {
        let name = self.field("name").unwrap_or_default();
        name.parse().map_err(|error: keypool_ledger::NameError| {
            PageReply::message(404, "No such pool", &error.to_string())
        })
    }
}

impl OperatorPage {
    /// The path at which a browser signs in.
    pub const SIGN_IN: &'static str = paths::SIGN_IN;

    /// Takes in the next records of the log, at most 4,096, and returns whether there may be more.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn follow(&self, source: &dyn PageSource) -> Result<bool, ReadError> {
        let position = self.pools().position();
        let records = source.log().read(position.saturating_add(1), BATCH_RECORDS)?;
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        for record in &records {
            // Another caller may have been here meanwhile.
            if record.seq == pools.position().saturating_add(1) {
                pools.apply(record.seq, &record.envelope);
            }
        }
        let has_more = records.len() == BATCH_RECORDS;
        if !has_more {
            pools.advance(source.now());
        }
        Ok(has_more)
    }

    /// The figures of the overview as JSON, the data of a live event.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn live(&self, source: &dyn PageSource) -> Result<String, ReadError> {
        Ok(self.figures(source)?.to_json())
    }

    /// Answers a path with its query. `None` if the page has no such view.
    #[must_use]
    pub fn get(&self, source: &dyn PageSource, path: &str, query: &str) -> Option<PageReply> {
        let query = Query::parse(query);
        let answered = match path {
            paths::OVERVIEW => self.overview(source),
            paths::POOLS => Ok(self.at_risk(source, &query)),
            paths::POOL => pool(source, &query),
            paths::HISTORY => history(source, &query),
            paths::SEARCH => self.search(source, &query),
            _ => return None,
        };
        Some(answered.unwrap_or_else(|error| {
            let mut detail = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                detail = format!("{detail}: {cause}");
            }
            PageReply::message(500, "The log cannot be read", &detail)
        }))
    }

    /// One of the files that the page names, by its path; `known` is the `If-None-Match` of the request.
    #[must_use]
    pub fn file(path: &str, known: Option<&str>) -> Option<PageReply> {
        let asset = Asset::at(path)?;
        let tag = asset.tag();
        let is_known = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
        let (status, body) =
            if is_known { (304, String::new()) } else { (200, asset.text.to_owned()) };
        Some(PageReply { status, content_type: asset.content_type, tag: Some(tag), body })
    }

    /// A field of a form.
    #[must_use]
    pub fn field(form: &str, name: &str) -> Option<String> {
        Query::parse(form).field(name).map(str::to_owned)
    }

    /// The confirmation of the action that a form names.
    #[must_use]
    pub fn confirmation(form: &str) -> PageReply {
        match Self::action(form) {
            Ok(action) => PageReply::html(200, views::confirm(&action)),
            Err(refusal) => refusal,
        }
    }

    /// The action that a form names.
    ///
    /// # Errors
    ///
    /// Returns the page that says why there is none.
    pub fn action(form: &str) -> Result<Action, PageReply> {
        let refusal =
            |error: ActionError| PageReply::message(400, "No such action", &error.to_string());
        Action::of_form(form).map_err(refusal)
    }

    /// The page that asks for the operator's token; `is_wrong` after a wrong one.
    #[must_use]
    pub fn sign_in(is_wrong: bool) -> PageReply {
        PageReply::html(if is_wrong { 403 } else { 200 }, views::sign_in(is_wrong))
    }

    /// Whether a path is served without the operator's token: the page that asks for it, and the files it names.
    #[must_use]
    pub fn is_open(path: &str) -> bool {
        path == paths::SIGN_IN || Asset::at(path).is_some()
    }

    /// The page that says how an action went: the effect, or the reason why there is none.
    #[must_use]
    pub fn outcome(action: &Action, went: Result<&str, &str>) -> PageReply {
        PageReply::html(if went.is_ok() { 200 } else { 409 }, views::outcome(action, went))
    }

    fn overview(&self, source: &dyn PageSource) -> Result<PageReply, ReadError> {
        let (retention, backups) = (source.retention(), source.backups());
        Ok(PageReply::html(200, views::overview(&self.figures(source)?, retention, backups)))
    }

    fn at_risk(&self, source: &dyn PageSource, query: &Query) -> PageReply {
        let levels = [Level::Healthy, Level::Low, Level::Critical, Level::Empty];
        let word = query.field("level").unwrap_or_default();
        let query = AtRiskQuery {
            user: query.field("user").map(str::to_owned),
            level: levels.into_iter().find(|level| level.word() == word),
            skip: query.field("skip").and_then(|skip| skip.parse().ok()).unwrap_or_default(),
        };
        let (now, pools, limit) = (source.now(), self.pools(), ROWS_MAX.saturating_add(1));
        let listed = match (&query.user, query.level) {
            (Some(user), _) => pools.of_users(user, now, limit),
            (None, Some(level)) => pools.of(level, now, (query.skip, limit)),
            (None, None) => pools.running_dry(now, query.skip, limit),
        };
        drop(pools);
        PageReply::html(200, views::at_risk(&query, &listed, now))
    }

    fn search(&self, source: &dyn PageSource, query: &Query) -> Result<PageReply, ReadError> {
        let text: String = query.field("q").unwrap_or_default().chars().take(TEXT_MAX).collect();
        let mut found = Biographies::default();
        let mut pools = Vec::new();
        if !text.is_empty() {
            found = Biographies::find(source, &text)?;
            let user = text.split('/').next().unwrap_or_default();
            pools = self.pools().of_users(user, source.now(), ROWS_MAX);
        }
        Ok(PageReply::html(200, views::search(&text, &found, &pools)))
    }

    fn figures(&self, source: &dyn PageSource) -> Result<OverviewFigures, ReadError> {
        let (now, text, head) = (source.now(), source.metrics(), source.log().head()?.seq);
        let metrics = MetricsText(&text);
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = metrics.value("keypool_disk_free_bytes") {
            // Whole bytes, far below the numbers that a float cannot hold.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            disk.note(now, free as u64);
        }
        Ok(OverviewFigures::of((&self.pools(), head), metrics, (now, disk.trend())))
    }

    fn pools(&self) -> std::sync::RwLockReadGuard<'_, PoolsOverview> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pool(source: &dyn PageSource, query: &Query) -> Result<PageReply, ReadError> {
    let pool = match query.pool() {
        Ok(pool) => pool,
        Err(refusal) => return Ok(refusal),
    };
    let Some(history) = History::end(source, &pool)? else {
        return Ok(unknown_pool(&pool));
    };
    let devices = introductions(&source.device_changes(pool.user())?);
    let suspensions = UserSuspensions::read(source.log(), pool.user())?;
    Ok(PageReply::html(200, views::pool(&history, &devices, &suspensions)))
}

fn history(source: &dyn PageSource, query: &Query) -> Result<PageReply, ReadError> {
    let pool = match query.pool() {
        Ok(pool) => pool,
        Err(refusal) => return Ok(refusal),
    };
    let at = query.field("at").and_then(|at| at.parse().ok());
    let history = History::read(source, &pool, Some(at.unwrap_or(u64::MAX)))?;
    Ok(history.map_or_else(
        || unknown_pool(&pool),
        |history| PageReply::html(200, views::time_travel(&history)),
    ))
}

fn unknown_pool(pool: &PoolId) -> PageReply {
    let detail = format!("{pool} has no history in this log; search for the user's name");
    PageReply::message(404, "No such pool", &detail)
}
