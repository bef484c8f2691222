//! `GET /state/...`: what instances have stored.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use serde::Deserialize;
use tandem_model::ids::{FunctionName, Instance, InvalidName, Key, Timestamp};
use tandem_store::Store;

use super::{Admin, view};
use crate::ingress::{answer, headers, malformed_query};
use crate::problem::Problem;

/// Keys of a page when no limit is given.
const PAGE_DEFAULT: usize = 100;
/// Keys of a page at most.
const PAGE_MAX: usize = 10_000;
/// Instances of a page at most when their values are asked for.
const PAGE_VALUES_MAX: usize = 1_000;
/// Map entries shown of one instance when no limit is given.
const ENTRIES_DEFAULT: usize = 1_000;
/// Map entries shown of one instance at most.
const ENTRIES_MAX: usize = 100_000;

/// Instances whose values are read at the same time.
const INSTANCES_AT_ONCE: usize = 64;

/// The query of `GET /state/{function}`.
#[derive(Debug, Default, Deserialize)]
pub struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    values: bool,
}

/// The query of `GET /state/{function}/{key}`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetQuery {
    as_of: Option<String>,
    limit: Option<usize>,
}

/// Answers `GET /state/{function}`: a page of instances.
pub async fn list<S: Store>(
    State(admin): State<Arc<Admin<S>>>,
    Path(function): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| malformed_query(&error.body_text()))?;
    let function: FunctionName = function.parse().map_err(|error| malformed_name(&error))?;
    let after: Option<Key> =
        query.after.as_deref().map(str::parse).transpose().map_err(|error| malformed_name(&error))?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).clamp(1, if query.values { PAGE_VALUES_MAX } else { PAGE_MAX });
    let keys = admin.runtime.instances(&function, after.as_ref(), limit).await;
    let keys = keys.map_err(|error| Problem::store(&error))?;
    if keys.is_empty() && after.is_none() {
        known(&admin, &function)?;
    }
    let next = keys.last().filter(|_| keys.len() == limit).map(ToString::to_string);
    let mut page = view::Instances { next, ..view::Instances::default() };
    if query.values {
        let read = async |key| {
            let state = admin.runtime.state(&Instance::new(function.clone(), key), None, ENTRIES_DEFAULT).await?;
            Ok::<_, tandem_store::Error>(view::State::from(&state))
        };
        let states = stream::iter(keys).map(read).buffered(INSTANCES_AT_ONCE).try_collect().await;
        page.instances = Some(states.map_err(|error| Problem::store(&error))?);
    } else {
        page.keys = Some(keys.iter().map(ToString::to_string).collect());
    }
    Ok(answer::json(StatusCode::OK, &page))
}

/// Answers `GET /state/{function}/{key}`: one instance, now or as of a past time.
pub async fn get<S: Store>(
    State(admin): State<Arc<Admin<S>>>,
    Path((function, key)): Path<(String, String)>,
    query: Result<Query<GetQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| malformed_query(&error.body_text()))?;
    let instance = Instance::parse(&function, &key).map_err(|error| malformed_name(&error))?;
    let as_of = query.as_of.as_deref().map(as_of).transpose()?;
    let limit = query.limit.unwrap_or(ENTRIES_DEFAULT).min(ENTRIES_MAX);
    let state = admin.runtime.state(&instance, as_of, limit).await.map_err(|error| Problem::store(&error))?;
    if state.values.is_empty() && state.entries.is_empty() {
        known(&admin, &instance.function)?;
    }
    Ok(answer::json(StatusCode::OK, &view::State::from(&state)))
}

/// State of a function that is not in the topology any more is still shown; but a function that has neither state nor
/// a resource is a typing mistake.
fn known<S: Store>(admin: &Admin<S>, function: &FunctionName) -> Result<(), Problem> {
    if admin.runtime.topology().functions.contains_key(function) {
        return Ok(());
    }
    Err(Problem::not_found("unknown-function", format!("function {:?} does not exist", function.as_str())))
}

/// RFC 3339, or the number of a store timestamp.
fn as_of(text: &str) -> Result<Timestamp, Problem> {
    let parsed = text.parse().map(Timestamp).ok().or_else(|| headers::point_in_time(text));
    parsed.ok_or_else(|| malformed_query(&format!("asOf={text:?} must be a time in RFC 3339 or a timestamp")))
}

fn malformed_name(error: &InvalidName) -> Problem {
    Problem::malformed("malformed-name", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_of_is_a_time_or_a_timestamp() {
        assert_eq!(as_of("77").unwrap(), Timestamp(77));
        assert_eq!(as_of("1970-01-01T00:00:01Z").unwrap(), Timestamp::at_unix_ms(1_000));
        assert_eq!(as_of("noon").unwrap_err().reason, "malformed-query");
    }
}
