//! Every field of every kind made wrong, and what the real API server says to it: it has to refuse what the checker refuses and
//! nothing else, to name the field, and to stay on its feet.

use std::collections::BTreeSet;

use anyhow::ensure;
use futures_util::StreamExt;
use kube::Client;
use serde_json::{Value, json};
use tandem_crds::check::report;
use tandem_crds::load::{Loaded, load_text};
use tandem_crds::resources::{API_VERSION, Kind};
use tandem_e2e_kubernetes::control_plane::Options;
use tandem_e2e_operator::objects;

use super::site::Site;
use super::wrong::{Case, cases};

/// Requests at one time.
const WRITERS: usize = 8;
/// Fewer cases than this are no proof: the schemas have far more fields.
const CASES_MIN: usize = 2_000;
/// Answers from here on are refusals.
const REFUSED: u16 = 400;
/// Answers from here on are failures of the API server.
const FAILED: u16 = 500;
/// An answer to what is let in.
const CREATED: u16 = 201;
/// Characters of an answer that are shown.
const TEXT_MAX: usize = 400;
/// Differences that are shown.
const SHOWN_MAX: usize = 200;

/// What was said to one case: nothing, or what is wrong and where.
struct Answer {
    code: u16,
    message: String,
    fields: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_what_the_checker_refuses_and_nothing_else() -> anyhow::Result<()> {
    let Some(site) = Site::start("fields", 1, Options::default()).await? else { return Ok(()) };
    let all: Vec<Case> = Kind::ALL.into_iter().flat_map(cases).collect();
    ensure!(all.len() > CASES_MIN, "only {} cases", all.len());
    let count = all.len();
    let kinds: BTreeSet<&str> = all.iter().map(|case| case.kind.name()).collect();
    ensure!(kinds.len() == Kind::ALL.len(), "only {kinds:?}");
    let judged = futures_util::stream::iter(all).map(|case| {
        let client = site.client.clone();
        async move { tokio::spawn(judge(client, case)).await? }
    });
    let verdicts: Vec<anyhow::Result<(bool, Option<String>)>> = judged.buffer_unordered(WRITERS).collect().await;
    let (mut refused, mut differences) = (0, Vec::new());
    for verdict in verdicts {
        let (is_refused, difference) = verdict?;
        refused += usize::from(is_refused);
        differences.extend(difference);
    }
    differences.sort();
    let shown = differences.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n");
    ensure!(differences.is_empty(), "{} of {count} differ:\n{shown}", differences.len());
    ensure!(refused > count / 2 && refused < count, "{refused} of {count} are refused");
    Ok(())
}

/// Whether the API server refuses the case, and in what it differs from the checker.
async fn judge(client: Client, case: Case) -> anyhow::Result<(bool, Option<String>)> {
    // JSON may hold this one as it is, YAML may not.
    let text = serde_json::to_string(&case.object)?.replace('\u{7f}', "\\u007f");
    let checked = load_text("it", &text);
    let answer = send(&client, case.kind, &text).await?;
    Ok((answer.code >= REFUSED, difference(&case, &checked, &answer)))
}

fn difference(case: &Case, checked: &Loaded, answer: &Answer) -> Option<String> {
    let found: Vec<String> =
        checked.problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect();
    let ours = || format!("checker: {found:?}").chars().take(TEXT_MAX).collect::<String>();
    let theirs =
        || format!("API server: {} {}", answer.code, answer.message).chars().take(TEXT_MAX).collect::<String>();
    let say = |what: &str| {
        Some(format!("{} {} {}: {what}; {}; {}", case.kind.name(), case.field, case.what, ours(), theirs()))
    };
    match (found.is_empty(), answer.code) {
        (_, FAILED..) => say("the API server fails"),
        (true, REFUSED..) if compiler_names(case, checked) => None,
        (true, REFUSED..) => say("only the API server refuses"),
        // Who wrote it meant something.
        (false, ..REFUSED) if case.is_loose => None,
        (false, ..REFUSED) => say("only the checker refuses"),
        (true, _) => None,
        (false, _) => {
            let names_it = |field: &str| related(field, &case.field);
            let is_in_text = answer.message.contains(&case.field) || answer.message.contains(last(&case.field));
            if !checked.problems.iter().any(|problem| names_it(&problem.field)) {
                say("the checker does not name the field")
            } else if !(answer.fields.iter().any(|field| names_it(field)) || answer.fields.is_empty() && is_in_text) {
                say("the API server does not name the field")
            } else {
                None
            }
        }
    }
}

/// Whether `tandem check` says it in its second step, in better words than a schema has.
fn compiler_names(case: &Case, checked: &Loaded) -> bool {
    let found = report(checked.clone(), None).problems;
    found.iter().any(|problem| problem.is_error() && related(&problem.field, &case.field))
}

fn last(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}

/// Whether one field is in the other, or is it.
fn related(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_start_matches('.'), other.trim_start_matches('.'));
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    // A rule at the root is about the whole.
    one.is_empty() || one == "<nil>" || within(one, other) || within(other, one)
}

/// A dry run of its creation, as strict as kubectl is.
async fn send(client: &Client, kind: Kind, text: &str) -> anyhow::Result<Answer> {
    let plural = kind.definition().spec.names.plural;
    let namespace = objects::namespace(0);
    let path = format!("/apis/{API_VERSION}/namespaces/{namespace}/{plural}?dryRun=All&fieldValidation=Strict");
    let request =
        http::Request::post(path).header("content-type", "application/json").body(text.as_bytes().to_vec())?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(Answer { code: CREATED, message: String::new(), fields: Vec::new() }),
        Err(kube::Error::Api(status)) => {
            let status = json!(status);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
            Ok(Answer {
                code: status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(u16::MAX),
                message: text(&status["message"]),
                fields: causes.iter().map(|cause| text(&cause["field"])).filter(|field| !field.is_empty()).collect(),
            })
        }
        Err(error) => Err(error.into()),
    }
}
